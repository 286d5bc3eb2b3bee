"""``@triton.jit``: kernels that can be defined, inspected and passed around, but not launched."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Generic, NoReturn, TypeVar

from patcher.errors import KernelNotReplaced, compose

T = TypeVar("T")


class KernelInterface(Generic[T]):
    """What can be launched with ``kernel[grid](...)``."""

    fn: Any

    def run(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises KernelNotReplaced."""
        raise not_replaced(self)

    def warmup(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises KernelNotReplaced."""
        raise not_replaced(self)

    def __getitem__(self, grid: Any) -> Callable[..., Any]:
        """The launcher for ``grid``; calling it raises KernelNotReplaced, unless a subclass overrides ``run``."""

        def launch(*args: Any, **kwargs: Any) -> Any:
            return self.run(*args, grid=grid, warmup=False, **kwargs)

        return launch


class KernelParam:
    """One parameter of a kernel: its position, name, and whether it is annotated ``tl.constexpr``."""

    def __init__(self, num: int, parameter: inspect.Parameter) -> None:
        self.num = num
        self.name = parameter.name
        self.is_constexpr = "constexpr" in str(parameter.annotation)


class JITFunction(KernelInterface[T]):
    """A function that Triton would compile.

    Attributes:
        fn: the decorated function.
        arg_names: the names of its parameters, in order.
        params: its parameters.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        version: Any = None,
        do_not_specialize: Iterable[int | str] | None = None,
        do_not_specialize_on_alignment: Iterable[int | str] | None = None,
        debug: bool | None = None,
        noinline: bool | None = None,
        repr: Callable[..., Any] | None = None,
        launch_metadata: Callable[..., Any] | None = None,
    ) -> None:
        parameters = inspect.signature(fn).parameters.values()
        self.fn = fn
        self.params = [KernelParam(num, parameter) for num, parameter in enumerate(parameters)]
        self.arg_names = [parameter.name for parameter in parameters]
        self.__name__ = fn.__name__
        self.__qualname__ = fn.__qualname__
        self.__module__ = fn.__module__
        self.__doc__ = fn.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises KernelNotReplaced: a kernel is called only from within another kernel."""
        raise not_replaced(self)

    def __repr__(self) -> str:
        return f"JITFunction({self.__module__}:{self.__qualname__})"


def jit(
    fn: Callable[..., Any] | None = None,
    *,
    version: Any = None,
    repr: Callable[..., Any] | None = None,
    launch_metadata: Callable[..., Any] | None = None,
    do_not_specialize: Iterable[int | str] | None = None,
    do_not_specialize_on_alignment: Iterable[int | str] | None = None,
    debug: bool | None = None,
    noinline: bool | None = None,
) -> Any:
    """Makes a kernel of a function: ``@triton.jit``, ``@triton.jit(...)`` or ``triton.jit(fn)``.

    The options tune the compiler; without one they change nothing.
    """

    def decorate(function: Callable[..., Any]) -> JITFunction[Any]:
        return JITFunction(function)

    return decorate if fn is None else decorate(fn)


def not_replaced(kernel: Any) -> KernelNotReplaced:
    """The error for launching ``kernel``, a kernel that may be wrapped in autotune or heuristics."""
    function = kernel
    while isinstance(function, KernelInterface):
        function = function.fn
    code = getattr(function, "__code__", None)
    where = f"{code.co_filename}:{code.co_firstlineno}" if code else "unknown file"
    name = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}"
    return KernelNotReplaced(
        compose(
            f"the Triton kernel {name} was launched, but Triton cannot run on a Mac and no replacement is in place",
            target=f"{name} ({where})",
            expected="a PyTorch replacement of the function that launches it",
            left="nothing was computed",
            run="call patch_for_mac() before importing anything else and look at `python -m patcher report`; if it "
            "lists no change for that function, report the kernel's name, or choose an option that does not use it",
        )
    )
