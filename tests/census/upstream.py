"""The modules with kernels, imported in this process, and their kernels by name."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import types
from pathlib import Path
from typing import Any

import torch

from tests.process import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGES = ("unsloth", "unsloth_zoo", "trl")

FLA = "unsloth_zoo/_vendored/fla"
"""unsloth_zoo makes it importable as ``fla``, and its files import one another so."""

KERNELS: dict[str, Any] = {}
"""Every kernel that was made in this process, by ``file:name:line``."""


def prepare() -> None:
    """Imports all of them. ``import triton`` must give by then what is wanted."""
    from tests.oracle.worker import load_packages_without_their_init

    _keep_kernels()
    interpreted = "interpreter" in _kind().__module__
    if interpreted:
        _say_that_it_compiles()
    load_packages_without_their_init()
    if interpreted:
        _complete_interpreter()
    sys.path.append(str(_site() / FLA.rpartition("/")[0]))
    sys.modules["einops"] = types.SimpleNamespace(rearrange=_rearranged)  # type: ignore[assignment]
    _answer_for_cuda()
    for name in modules():
        importlib.import_module(name)


def modules() -> list[str]:
    """Those that ``launch_sites.toml`` says have kernels; that it has all of them is tested there."""
    sites = tomllib.loads((ROOT / "tests/contract/launch_sites.toml").read_text())["site"]
    files = [site["file"] for site in sites if "kernels" in site and site["file"].partition("/")[0] in PACKAGES]
    return [file.removesuffix(".py").replace(FLA, "fla").replace("/", ".") for file in dict.fromkeys(files)]


def name_of(kernel: Any) -> str:
    """``file:name:line``, the file as from the folder of installed packages."""
    return name_of_function(kernel.fn)


def name_of_function(fn: Any) -> str:
    """The same of the function that a kernel was made of."""
    code = fn.__code__
    file = Path(code.co_filename)
    file = file.relative_to(_site()) if file.is_relative_to(_site()) else file
    return f"{file.as_posix()}:{fn.__name__}:{code.co_firstlineno}"


def _answer_for_cuda() -> None:
    """What their Python asks before it launches: a device of four multiprocessors, of Hopper's capability."""
    properties = types.SimpleNamespace(
        multi_processor_count=4,
        max_threads_per_multi_processor=2048,
        shared_memory_per_block_optin=232448,
        L2_cache_size=2**22,
        name="",
        major=9,
        minor=0,
    )
    torch.cuda.current_device = lambda: 0
    torch.cuda.device = lambda device: contextlib.nullcontext()  # type: ignore
    torch.cuda.get_device_capability = lambda device=None: (9, 0)
    torch.cuda.get_device_properties = lambda device=None: properties  # type: ignore


def _site() -> Path:
    return Path(torch.__file__).parents[1]


def _say_that_it_compiles() -> None:
    """Libraries that see the interpreter's variable define other kernels, or none."""
    from triton import knobs

    knobs.runtime.interpret = True
    del os.environ["TRITON_INTERPRET"]


def _complete_interpreter() -> None:
    from tests.oracle.cases.grouped_gemm import count_in_indices
    from tests.oracle.interpreter import complete_interpreter

    complete_interpreter()
    count_in_indices()


def _rearranged(x: torch.Tensor, pattern: str) -> torch.Tensor:
    """Of einops, which is not installed, what a file asks for."""
    if pattern != "b t ... -> b t (...)":
        raise NotImplementedError(pattern)
    return x.flatten(2)


def _keep_kernels() -> None:
    """Also those that are made within functions."""
    kind = _kind()
    plain = kind.__init__

    def make(kernel: Any, *args: Any, **kwargs: Any) -> None:
        plain(kernel, *args, **kwargs)
        KERNELS[name_of(kernel)] = kernel

    kind.__init__ = make


def _kind() -> Any:
    """What ``triton.jit`` makes, in the interpreter and in the shim."""
    try:
        return importlib.import_module("triton.runtime.interpreter").InterpretedFunction
    except ModuleNotFoundError:
        return importlib.import_module("triton.runtime.jit").JITFunction
