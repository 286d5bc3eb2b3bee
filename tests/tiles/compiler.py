"""Triton's compiler, as far as it goes without a GPU: a launch turns the kernel into Triton's IR, and computes nothing.

The interpreter runs much that is no Triton: it leaves Python to Python. A kernel that compiles is one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import ASTSource, make_backend
from triton.language import constexpr
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import JITFunction, mangle_type

FORMATS = ("fp8e4nv", "fp8e5", "fp8e4b15", "fp8e4b8", "fp8e5b16")
"""Those of every GPU: each has some of them."""


class NotCompiled(Exception):
    """The compiler refuses a kernel; the text is the compiler's."""


def launches_compile() -> None:
    """From here on a launch in this process compiles; of several configurations the first is taken."""
    JITFunction.run = compile_kernel
    Autotuner.do_bench = property(lambda tuner: _no_times)


def _no_times(launch: Callable[[], Any], *args: Any, **kwargs: Any) -> list[float]:
    launch()
    return [0.0, 0.0, 0.0]


def compile_kernel(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
    """Makes IR of the kernel for these arguments. Raises NotCompiled."""
    parameters = inspect.signature(self.fn).parameters
    bound = inspect.signature(self.fn).bind(*args, **{name: kwargs[name] for name in kwargs if name in parameters})
    bound.apply_defaults()
    signature: dict[str, Any] = {}
    constants: dict[tuple[int, ...], Any] = {}
    for place, parameter in enumerate(self.params):
        value = bound.arguments[parameter.name]
        if parameter.is_constexpr:
            constants[place,] = value
        signature[parameter.name] = "constexpr" if parameter.is_constexpr else _type(value, (place,), constants)
    try:
        _make_ir(ASTSource(self, signature, constants))
    except Exception as error:
        raise NotCompiled(str(error)) from error


def _type(value: Any, path: tuple[int, ...], constants: dict[tuple[int, ...], Any]) -> Any:
    """The type of an argument as the compiler writes it; None and tl.constexpr are constants."""
    if isinstance(value, tuple):
        return tuple(_type(part, (*path, place), constants) for place, part in enumerate(value))
    if value is None or isinstance(value, constexpr):
        constants[path] = value.value if isinstance(value, constexpr) else None
        return "constexpr"
    return mangle_type(value)


def _make_ir(source: Any) -> None:
    target = GPUTarget("cuda", 80, 32)
    backend = make_backend(target)
    options = replace(backend.parse_options({"arch": "sm80"}), supported_fp8_dtypes=FORMATS)
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    functions = backend.get_codegen_implementation(options)
    source.make_ir(target, options, functions, backend.get_module_map(), context)
