"""``@triton.jit``: kernels run as block programs on torch operators."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from patcher.errors import KernelNotSupported
from patcher.tiles import language
from patcher.tiles.fit import Fit
from patcher.tiles.language import ConstexprFunction, Jitted
from triton.compiler.compiler import CompiledKernel

T = TypeVar("T")


class KernelInterface(Generic[T]):
    """What can be launched with ``kernel[grid](...)``."""

    fn: Any
    arg_names: Any

    def named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Parameters to the arguments that are given."""
        return {**dict(zip(self.arg_names, args, strict=False)), **kwargs}

    def fit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Fit:
        """Whether and where it runs with such arguments; the subclasses say how. Nothing runs."""
        raise NotImplementedError

    def run(self, *args: Any, grid: Any, warmup: bool = False, **kwargs: Any) -> Any:
        """Launches the kernel, or only makes its program; the subclasses say how."""
        raise NotImplementedError

    def warmup(self, *args: Any, grid: Any = (1,), **kwargs: Any) -> Any:
        """Makes the program for such arguments and gives it; torch types stand for tensors. Nothing runs."""
        return self.run(*args, grid=grid, warmup=True, **kwargs)

    def __getitem__(self, grid: Any) -> Callable[..., Any]:
        """The launcher for ``grid``: up to three extents, or a function of the arguments to them."""

        def launch(*args: Any, **kwargs: Any) -> Any:
            return self.run(*args, grid=grid, warmup=False, **kwargs)

        return launch


class KernelParam:
    """One parameter of a kernel: its position, name, and whether it is annotated ``tl.constexpr``."""

    def __init__(self, num: int, parameter: inspect.Parameter, do_not_specialize: bool = False) -> None:
        self.num = num
        self.name = parameter.name
        self.annotation = _type_of(parameter.annotation)
        self.is_constexpr = "constexpr" in str(parameter.annotation)
        self.do_not_specialize = do_not_specialize


def _type_of(annotation: Any) -> Any:
    """The type that ``"tl.int64"`` names, as annotations are where they are not evaluated; others as they are."""
    return language.TYPES.get(annotation.rpartition(".")[2], annotation) if isinstance(annotation, str) else annotation


class JITFunction(KernelInterface[T], Jitted):
    """A function in the kernel language.

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
        parameters = tuple(inspect.signature(fn).parameters.values())
        kept = set(do_not_specialize or ())
        self.fn = fn
        self.params = [
            KernelParam(num, parameter, num in kept or parameter.name in kept)
            for num, parameter in enumerate(parameters)
        ]
        self.arg_names = [parameter.name for parameter in parameters]
        self.__name__ = fn.__name__
        self.__qualname__ = fn.__qualname__
        self.__module__ = fn.__module__
        self.__doc__ = fn.__doc__
        self.constants = tuple(parameter.name for parameter in self.params if parameter.is_constexpr)
        self.defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        self._kernel: Any = None
        self._compiled: dict[Any, CompiledKernel] = {}

    def run(self, *args: Any, grid: Any, warmup: bool = False, **kwargs: Any) -> Any:
        """Runs the kernel for every place in ``grid``, or with ``warmup`` only makes its program.

        Returns:
            What the kernel is for such arguments; None in compiled code.

        Raises:
            LaunchRefused: arguments or grid do not fit.
            KernelNotSupported: the kernel holds what cannot run.
            KernelFailed: it left its tensors, or an assertion of its own does not hold.
        """
        from patcher.tiles import traced  # with torch, which kernels can be defined without

        if traced.wanted() and not warmup:
            return traced.launch(self, grid, args, kwargs)
        program = self.kernel.compile(args, kwargs) if warmup else self.kernel.launch(grid, args, kwargs)
        key = (program, kwargs.get("num_warps"), kwargs.get("num_stages"), kwargs.get("num_ctas"))
        compiled = self._compiled.get(key)
        if compiled is None:
            options = {name: value for name, value in kwargs.items() if name not in self.arg_names}
            compiled = self._compiled[key] = CompiledKernel(self, program, options)
        return compiled

    def fit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Fit:
        """Whether and where it runs with such arguments. Nothing runs."""
        from patcher.tiles import traced

        return traced.fit(self, args, kwargs) if traced.wanted() else self.kernel.fit(args, kwargs)

    @property
    def kernel(self) -> Any:
        """Its programs: a `patcher.tiles.launch.Kernel`."""
        if self._kernel is None:
            from patcher.tiles.launch import Kernel

            self._kernel = Kernel(self.fn, self.params)
        return self._kernel

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raises KernelNotSupported: a kernel is called only from within another kernel."""
        raise KernelNotSupported(
            f"the Triton kernel {self.__module__}.{self.__qualname__} was called outside a kernel; it is launched as "
            "kernel[grid](...)"
        )

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

    Of the options only ``do_not_specialize`` changes anything: integers that are 1 stay arguments.
    """

    def decorate(function: Callable[..., Any]) -> JITFunction[Any]:
        if isinstance(function, JITFunction):
            return function
        return JITFunction(function, do_not_specialize=do_not_specialize)

    return decorate if fn is None else decorate(fn)


class TensorWrapper:
    """A tensor whose elements a kernel sees as another type of the same width: unsigned integers, or fp8 of any format.

    Attributes:
        base: the tensor.
        dtype: the type of the kernel language.
        data, device, shape: those of the tensor.
    """

    def __init__(self, base: Any, dtype: Any) -> None:
        self.base, self.dtype = base, dtype
        self.data, self.device, self.shape = base.data, base.device, base.shape

    def __repr__(self) -> str:
        return f"TensorWrapper[{self.dtype}]({self.base})"

    def data_ptr(self) -> int:
        """The tensor's."""
        return int(self.base.data_ptr())

    def stride(self, *axis: int) -> Any:
        """The tensor's."""
        return self.base.stride(*axis)

    def element_size(self) -> int:
        """Bytes of an element."""
        return int(self.base.element_size())

    def copy_(self, other: TensorWrapper) -> None:
        """Takes the elements of another one."""
        self.base.copy_(other.base)

    def cpu(self) -> TensorWrapper:
        """The same on the CPU."""
        return self.to("cpu")

    def to(self, device: Any) -> TensorWrapper:
        """The same on a device."""
        return TensorWrapper(self.base.to(device), self.dtype)

    def clone(self) -> TensorWrapper:
        """A copy."""
        return TensorWrapper(self.base.clone(), self.dtype)

    def new_empty(self, sizes: Any) -> TensorWrapper:
        """A tensor of another shape, whose elements are seen as the same type."""
        return TensorWrapper(self.base.new_empty(sizes), self.dtype)


def reinterpret(tensor: Any, dtype: Any) -> Any:
    """A tensor, or a wrapped one, whose elements a kernel sees as ``dtype``; the tensor itself where that is its type.

    Raises:
        TypeError: it is no tensor.
    """
    if not hasattr(tensor, "data_ptr"):
        raise TypeError(f"a tensor is needed to reinterpret, and this is a {type(tensor).__qualname__}")
    base = tensor.base if isinstance(tensor, TensorWrapper) else tensor
    return base if dtype == base.dtype else TensorWrapper(base, dtype)


def constexpr_function(fn: Callable[..., Any]) -> ConstexprFunction:
    """Lets kernels call a Python function with what is known at compile time."""
    return ConstexprFunction(fn)
