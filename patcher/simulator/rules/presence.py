"""Which operators have an mps kernel: reads torch's own list, native_functions.yaml."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Function:
    """One entry of native_functions.yaml: the backends that it names kernels for."""

    backends: set[str] = field(default_factory=set)
    delegate: str | None = None


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
