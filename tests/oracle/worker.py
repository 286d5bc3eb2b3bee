"""The child process: ``python -m tests.oracle.worker interpreted|patched|metal``, calls on stdin, answers on stdout."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.oracle.client import receive, send

PACKAGES = ("unsloth_zoo", "unsloth", "unsloth.kernels", "unsloth.kernels.moe", "unsloth.models")


def main(mode: str) -> None:
    """Answers calls until stdin ends. What upstream prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if mode == "metal":
        start_with_metal()
    load_packages_without_their_init()
    if mode == "interpreted":
        from tests.oracle.interpreter import complete_interpreter

        complete_interpreter()
    else:
        from tests.oracle.patching import PatchOnImport

        sys.meta_path.insert(0, PatchOnImport())
    while True:
        try:
            case, args, kwargs = receive(sys.stdin.buffer)
        except EOFError:
            return
        there, back = (on_mps, on_cpu) if mode == "metal" else (as_it_is, as_it_is)
        kind, told = answer(case, there(args), there(kwargs))
        send(answers, (kind, back(told)))


def answer(case: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, Any]:
    """("answer", what the case returns) or ("error", its traceback)."""
    file, _, name = case.partition(":")
    try:
        function = getattr(importlib.import_module(f"tests.oracle.cases.{file}"), name)
        return "answer", function(*args, **kwargs)
    except Exception:  # noqa: BLE001 - the traceback is the answer
        return "error", traceback.format_exc()


def start_with_metal() -> None:
    """A simulated Mac, on which every op runs as its Metal variant."""
    from patcher.simulator import startup

    startup.start("M3 Max 36GB")
    os.environ |= {"PATCHER_FORCE": "metal", "PATCHER_TRITON_CACHE": "0"}


def as_it_is(value: Any) -> Any:
    """Tensors stay on the CPU."""
    return value


def on_mps(value: Any) -> Any:
    """The same with tensors on mps, in the same places of their memory."""
    from patcher.ops.variants import trial

    def moved(x: torch.Tensor) -> torch.Tensor:
        return x if x.is_meta else trial.on_mps({"": x.detach()})[""].requires_grad_(x.requires_grad)

    return each_tensor(value, moved)


def on_cpu(value: Any) -> Any:
    """The same with tensors on the CPU."""
    return each_tensor(value, lambda x: x if x.is_meta else x.cpu())


def each_tensor(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same with its tensors changed, within tuples, lists and dictionaries too."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, tuple | list):
        return type(value)(each_tensor(each, change) for each in value)
    if isinstance(value, dict):
        return {name: each_tensor(each, change) for name, each in value.items()}
    return value


def load_packages_without_their_init() -> None:
    """Makes the packages importable without running their ``__init__``, which takes long and needs a GPU."""
    site = Path(next(iter(importlib.util.find_spec("unsloth").submodule_search_locations))).parent  # type: ignore
    for name in PACKAGES:
        folder = site.joinpath(*name.split("."))
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        package.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        package.__spec__.submodule_search_locations = [str(folder)]
        sys.modules[name] = package
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, package)
    device = importlib.import_module("unsloth_zoo.device_type")
    for name in ("DEVICE_TYPE", "DEVICE_TYPE_TORCH", "DEVICE_COUNT"):
        setattr(sys.modules["unsloth_zoo"], name, getattr(device, name))


if __name__ == "__main__":
    main(sys.argv[1])
