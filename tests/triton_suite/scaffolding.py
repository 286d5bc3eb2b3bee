"""What the tools of Triton's tests import and no user does: settings, targets, and their compiler's entry points.

The tools themselves (``triton._internal_testing``) are read from the checkout.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import itertools
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar, NoReturn

import pytest

COMPARES_IR = "reads what Triton compiles; the kernel was read, and run where it is launched"

WIDTHS = {"i1": "int1", "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64"}
UNSIGNED = {"u1": "int1", "u8": "uint8", "u16": "uint16", "u32": "uint32", "u64": "uint64"}
FLOATS = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}
OF_TORCH = {
    "float8_e4m3fn": "fp8e4nv",
    "float8_e5m2": "fp8e5",
    "float8_e4m3fnuz": "fp8e4b8",
    "float8_e5m2fnuz": "fp8e5b16",
    "bool": "i1",
    "int1": "i1",
}
"""Other names of types to the short ones."""
NARROW = {f"fp8{name}": f"float8{name}" for name in ("e4nv", "e5", "e4b8", "e4b15", "e5b16")}
SHORT = {**WIDTHS, **UNSIGNED, **FLOATS, **NARROW}
"""Triton's short names of types, as signatures have them, to those of the language."""


def tools_of(repository: Path) -> None:
    """Makes ``triton._internal_testing`` and ``triton.tools.mxfp`` those of the checkout."""
    for name in ("triton.tools.mxfp", "triton._internal_testing"):
        file = repository / "python" / f"{name.replace('.', '/')}.py"
        if file.exists():
            _load(name, file)


def supply() -> None:
    """Puts in place around the shim what the tools and the tests import."""
    import triton
    import triton.language as tl
    import triton.runtime
    from triton.compiler.compiler import CompiledKernel

    from patcher.tiles.launch import Kernel
    from tests.triton_suite import on_cpu

    Kernel.launch = on_cpu.plainly(Kernel.launch)  # type: ignore[method-assign]
    triton.runtime.driver = _module("triton.runtime.driver", active=_Driver())
    triton.knobs = _module("triton.knobs", base_knobs=_Knobs, propagate_env=True, **_knobs())
    _module("triton._compile_warmup_state", is_compile_warmup=lambda: False)
    _module("triton.runtime._allocation", NullAllocator=type("NullAllocator", (), {}))
    _module(
        "triton._filecheck",
        filecheck_test=_filecheck_test,
        run_filecheck_test=_run_filecheck_test,
        run_filecheck=lambda *_: pytest.skip(COMPARES_IR),
        run_parser=_run_parser,
    )
    sys.modules["triton.runtime.errors"].InterpreterError = type("InterpreterError", (Exception,), {})
    sys.modules["triton.backends.compiler"].GPUTarget = SimpleNamespace
    sys.modules["triton.compiler.errors"].CompileTimeAssertionFailure = triton.CompilationError
    CompiledKernel.asm = property(lambda _: pytest.skip(COMPARES_IR))  # type: ignore[assignment]
    jit = sys.modules["triton.runtime.jit"]
    jit.JITFunction.src = property(_source)
    jit.JITFunction._unsafe_update_src = _replace
    jit.type_canonicalisation_dict = {long: short for short, long in SHORT.items()} | OF_TORCH
    tl.str_to_ty = lambda name, _: _type(name)
    triton.TritonError = triton.CompilationError
    triton.CompilationError.error_message = property(str)
    triton.compile = _compile
    triton.compiler.ASTSource = _Source


def _source(kernel: Any) -> str:
    """The text of a kernel, from ``def`` on."""
    text = textwrap.dedent(inspect.getsource(kernel.fn))
    return text[re.search(r"^def\s", text, re.MULTILINE).start() :]  # type: ignore[union-attr]


_TEXTS = tempfile.TemporaryDirectory(prefix="triton-suite-")
_replaced = itertools.count()


def _replace(kernel: Any, text: str) -> None:
    """Gives a kernel another text, in a file that goes when the process ends."""
    file = Path(_TEXTS.name, f"{kernel.__name__}_{next(_replaced)}.py")
    file.write_text(text)
    spec = importlib.util.spec_from_file_location(kernel.__name__, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    around = dict(_around(kernel.fn))
    module.__dict__.update({**kernel.fn.__globals__, **around, **module.__dict__})
    spec.loader.exec_module(module)
    kernel.fn = getattr(module, kernel.__name__)


def _around(function: Any) -> Iterator[tuple[str, Any]]:
    """The names of enclosing functions that one uses, and their values; those that have one by now."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:
            continue


class _Driver:
    """A target that is none of those that the tests know."""

    def get_current_target(self) -> SimpleNamespace:
        return SimpleNamespace(backend="mps", arch="apple", warp_size=32)

    def get_current_device(self) -> int:
        return 0

    utils = SimpleNamespace(get_device_properties=lambda _: {"max_shared_mem": 1 << 30})


class _Knobs:
    """Settings of Triton's compiler and caches: they can be set, and change nothing."""

    knob_descriptors: ClassVar[dict[str, Any]] = {}

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)

    def copy(self) -> _Knobs:
        return _Knobs()

    def reset(self) -> _Knobs:
        return self

    def scope(self) -> nullcontext[None]:
        return nullcontext()


def _knobs() -> dict[str, _Knobs]:
    names = ("runtime", "compilation", "cache", "language", "build", "nvidia", "amd", "autotuning", "proton")
    return {name: _Knobs() for name in names}


class _Source:
    """What ``triton.compile`` takes: a kernel, the types of its arguments, and its constants."""

    def __init__(
        self, fn: Any, signature: dict[str, str], constexprs: dict[Any, Any] | None = None, attrs: Any = None, **_: Any
    ):
        self.fn, self.signature, self.constexprs = fn, signature, constexprs or {}


def _compile(src: Any, *_: Any, **__: Any) -> Any:
    """The program of a kernel for a signature. Raises as a launch does."""
    from patcher.tiles.frontend import Known, read

    if not isinstance(src, _Source):
        pytest.skip(COMPARES_IR)
    source, names = src, [parameter.name for parameter in src.fn.params]
    constants = {names[key[0]] if isinstance(key, tuple) else key: value for key, value in source.constexprs.items()}
    types = {name: _type(text) for name, text in source.signature.items() if text != "constexpr"}
    specs = {name: Known(constants[name]) if name in constants else types.get(name, Known(None)) for name in names}
    return read(source.fn.fn, specs)


def _type(text: str) -> Any:
    import triton.language as tl

    if text.startswith("*"):
        return tl.pointer_type(_type(text[1:]))
    return getattr(tl, SHORT[text])


def _run_parser(kernel: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None, **_: Any) -> Any:
    return kernel.warmup(*args, **(kwargs or {}))


def _run_filecheck_test(kernel: Any) -> NoReturn:
    _run_parser(kernel)
    pytest.skip(COMPARES_IR)


def _filecheck_test(kernel: Any) -> Any:
    @functools.wraps(kernel.fn)
    def test() -> None:
        _run_filecheck_test(kernel)

    del test.__wrapped__  # the kernel's parameters are no fixtures
    return test


def _module(name: str, **names: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(names)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    setattr(sys.modules[parent], child, module)
    return module


def _load(name: str, file: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
