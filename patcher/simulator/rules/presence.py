"""Which operators have an mps kernel, read from the installed torch's own list."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from patcher.errors import SimulatorUnavailable, compose

WITHIN = "packaged/ATen/native/native_functions.yaml"


@dataclass
class Function:
    """One entry of native_functions.yaml: the backends that it names kernels for."""

    backends: set[str] = field(default_factory=set)
    delegate: str | None = None


def native_functions() -> Path:
    """The list's path in the installed torch (package torchgen, which comes in torch's wheel).

    Raises:
        SimulatorUnavailable: this torch has none.
    """
    spec = importlib.util.find_spec("torchgen")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    path = Path(folders[0], WITHIN) if folders else Path(WITHIN)
    if not path.exists():
        raise SimulatorUnavailable(
            compose(
                "the simulated mps device does not find torch's list of operators, which says what a Mac has",
                expected=f"torchgen/{WITHIN} beside torch",
                found=str(folders or "no package torchgen"),
                run="pip install --force-reinstall torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu",
            )
        )
    return path


def with_kernel(lines: Iterable[str], backend: str = "MPS") -> set[str]:
    """Names (``add.Tensor``) of the functions with a kernel for ``backend``, their own or their structured delegate's.

    Reads the two fields that it needs line by line: the file has 16,000 lines, and a YAML parser takes seconds.
    """
    functions = parse(lines)

    def has(function: Function) -> bool:
        delegate = functions.get(function.delegate or "")
        return backend in function.backends or (delegate is not None and backend in delegate.backends)

    return {name for name, function in functions.items() if has(function)}


def parse(lines: Iterable[str]) -> dict[str, Function]:
    """The entries by name, without comments."""
    functions: dict[str, Function] = {}
    current = Function()
    in_dispatch = False
    for line in lines:
        text = line.split("#")[0].strip()
        if line.startswith("- func:"):
            current = functions[text[len("- func:") : text.index("(")].strip()] = Function()
            in_dispatch = False
        elif line.startswith("    "):
            if in_dispatch and ":" in text:
                current.backends.update(key.strip() for key in text.split(":")[0].split(","))
        elif line.startswith("  ") and text:
            in_dispatch = text == "dispatch:"
            if text.startswith("structured_delegate:"):
                current.delegate = text.split(":")[1].strip()
    return functions
