"""``kernel[grid](...)``: arguments to types and constants, the program for them, and a run of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import torch
from torch._subclasses.fake_tensor import FakeTensor

from patcher.errors import KernelNotSupported, LaunchRefused, compose
from patcher.tiles import types
from patcher.tiles.aliases import aliases_of
from patcher.tiles.backends import fit, run
from patcher.tiles.fit import Fit
from patcher.tiles.frontend import Descriptor, Known, read
from patcher.tiles.language import const, constexpr, plain
from patcher.tiles.on_metal import Launcher
from patcher.tiles.on_torch.carriers import OF_TORCH
from patcher.tiles.program import Program
from patcher.tiles.types import DType, Pointer
from patcher.tiles.warm import Kind, Way, kind_of

OPTIONS = frozenset(
    (
        *("num_warps", "num_stages", "num_ctas", "maxnreg", "ir_override", "debug", "sanitize_overflow", "extern_libs"),
        *("enable_fp_fusion", "launch_pdl", "launch_cooperative_grid", "cluster_dims", "waves_per_eu", "kpack"),
        *("matrix_instr_nonkdim", "schedule_hint", "instrumentation_mode", "stream", "device", "device_type"),
        *("allow_fp8e4nv", "default_dot_input_precision", "allowed_dot_input_precisions"),
    )
)
"""Keywords of a launch that tune the compiler or choose a device; they change nothing here."""

MOST_WAYS = 256
"""Kinds of launches of a kernel that are kept; then it begins anew."""

F = TypeVar("F", bound=Callable[..., Any])

_uncompiled: Callable[[F], F] = torch.compiler.disable
"""Compiled code calls a launch as it is, and goes on after it."""


class Parameter(Protocol):
    """What a launch asks of a kernel's parameter; ``annotation`` may fix its type."""

    name: str
    is_constexpr: bool
    do_not_specialize: bool
    annotation: Any


class Kernel:
    """One kernel and the programs that were made of it.

    Args:
        fn: the Python function.
        parameters: its parameters in order.
    """

    def __init__(self, fn: Callable[..., Any], parameters: Iterable[Parameter]) -> None:
        self.fn = fn
        self.parameters = {parameter.name: parameter for parameter in parameters}
        self.signature = inspect.signature(fn)
        self.programs: dict[Any, Program] = {}
        self.ways: dict[Kind, Way] = {}
        self.constant = tuple(parameter.is_constexpr for parameter in self.parameters.values())
        self.variable = frozenset(name for name, parameter in self.parameters.items() if not parameter.is_constexpr)
        found = self.signature.parameters.values()
        self.defaults = {p.name: plain(p.default) for p in found if p.default is not p.empty}

    @_uncompiled
    def launch(self, grid: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Program:
        """Runs the kernel for every place in ``grid``; gives the program that ran.

        Args:
            grid: up to three extents, or a function of the arguments to them.

        Raises:
            LaunchRefused: arguments or grid do not fit.
            KernelNotSupported: the kernel holds what cannot run.
            KernelFailed: it left its tensors, or an assertion of its own does not hold.
        """
        kind = kind_of(args, kwargs, self.constant, self.variable)
        way = self.ways.get(kind) if kind is not None else None
        return (way and self.launch_again(way, grid, args, kwargs)) or self.launch_anew(kind, grid, args, kwargs)

    def launch_again(self, way: Way, grid: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Program | None:
        """A launch of a kind that goes this way; None where it cannot, and nothing ran."""
        values = (*self.defaults.values(), *args, *kwargs.values())
        found = grid(dict(zip(way.names, values, strict=True))) if callable(grid) else grid
        extents = _usual(found)
        return way.program if extents is not None and way.run(values, extents) else None

    def launch_anew(self, kind: Kind | None, grid: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Program:
        """A launch that is looked at as if it were the first one; the next ones of its kind may go its way."""
        bound = self.bind(args, kwargs)
        extents = self.extents(grid, {**kwargs, **bound})
        device = self.device(bound)
        specs = self.specs(bound)
        program, passed = self.program_for(bound, specs)
        launcher = run(program, extents, passed, device, num_warps(kwargs)) if all(extents) else None
        if launcher is not None and kind is not None:
            picked = [name for name in bound if not isinstance(specs[name], Known)]
            # a default that is a tuple or a descriptor is several arguments of the program
            if len(picked) == len(passed) and all(bound[n] is p for n, p in zip(picked, passed, strict=True)):
                names = (*self.defaults, *list(self.parameters)[: len(args)], *kwargs)
                self.keep(kind, Way(program, names, picked, launcher.shader), launcher)
        return program

    def keep(self, kind: Kind, way: Way, launcher: Launcher) -> None:
        """The next launches of this kind go this way."""
        if len(self.ways) >= MOST_WAYS:
            self.ways.clear()
        self.ways.setdefault(kind, way).launchers[launcher.overlapping] = launcher

    def compile(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Program:
        """The program for such arguments; a torch type stands for a tensor of it. Raises as `launch` does."""
        return self.program(self.specs(self.bind(args, kwargs)))

    def fit(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Fit:
        """Whether and where it runs with such arguments. Nothing runs."""
        try:
            bound = self.bind(args, kwargs)
            device = self.device(bound)
            program, passed = self.program_for(bound, self.specs(bound))
        except (KernelNotSupported, LaunchRefused):
            return Fit.NOT_AT_ALL
        return fit(program, passed, device.type, num_warps(kwargs))

    def accesses(self, kwargs: Mapping[str, Any]) -> tuple[Program, frozenset[str]]:
        """The program for such arguments, and those of them that it writes. Raises as `compile` does."""
        program = self.compile((), kwargs)
        return program, frozenset(aliases_of(program).written)

    def refused(self, why: str, expected: str | None = None, found: str | None = None) -> LaunchRefused:
        """The error of a launch."""
        code = self.fn.__code__
        name = f"{self.fn.__module__}.{self.fn.__qualname__}"
        return LaunchRefused(
            compose(
                f"the Triton kernel {name} cannot be launched: {why}",
                target=f"{name} ({code.co_filename}:{code.co_firstlineno})",
                expected=expected,
                found=found,
                left="nothing was computed",
                run="correct the launch",
            )
        )

    # -- arguments -------------------------------------------------------------------------------------------------

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Parameter names to values, defaults among them."""
        given = {name: value for name, value in kwargs.items() if name in self.parameters or name not in OPTIONS}
        try:
            bound = self.signature.bind(*args, **given)
        except TypeError as error:
            raise self.refused(str(error), expected=f"{self.fn.__name__}({', '.join(self.parameters)})") from error
        bound.apply_defaults()
        return {name: plain(value) for name, value in bound.arguments.items()}

    def extents(self, grid: Any, bound: dict[str, Any]) -> tuple[int, int, int]:
        """Three extents, 1 where fewer are given."""
        found = grid(bound) if callable(grid) else grid
        items = tuple(found) if isinstance(found, (tuple, list)) else (found,)
        if not 1 <= len(items) <= 3 or not all(hasattr(item, "__index__") and int(item) >= 0 for item in items):
            raise self.refused("its grid is none", expected="one to three whole numbers", found=repr(found))
        x, y, z = (*map(int, items), 1, 1)[:3]
        return x, y, z

    def device(self, bound: dict[str, Any]) -> torch.device:
        """The one device on which all tensors are; none of them is a stand-in of torch's."""
        places: dict[torch.device, str] = {}
        for name, value in bound.items():
            for tensor in tensors_in(value):
                if tensor.is_meta or isinstance(tensor, FakeTensor):
                    way = "torch.library.wrap_triton(kernel)[grid](...), which torch can trace"
                    found = f"a {type(tensor).__name__} on {tensor.device}"
                    raise self.refused(f"{name} holds no numbers", expected=way, found=found)
                places.setdefault(tensor.device, name)
        if len(places) > 1:
            found = ", ".join(f"{name} on {device}" for device, name in places.items())
            raise self.refused("its tensors are on different devices", expected="one device", found=found)
        return next(iter(places), torch.device("cpu"))

    def specs(self, bound: dict[str, Any]) -> dict[str, Any]:
        """What the front end is told about every argument."""
        return {name: self.spec(name, value) for name, value in bound.items()}

    def program_for(self, bound: dict[str, Any], specs: dict[str, Any]) -> tuple[Program, list[Any]]:
        """The program for these arguments, of which ``specs`` are known, and what it takes of them at a run."""
        return self.program(specs), [part for n, value in bound.items() for part in _parts(value, specs[n])]

    def program(self, specs: dict[str, Any]) -> Program:
        """The program for arguments of these types and constants, made once."""
        key = tuple(_key(spec) for spec in specs.values())
        if key not in self.programs:
            self.programs[key] = read(self.fn, specs)
        return self.programs[key]

    def spec(self, name: str, value: Any) -> Any:
        """What the front end is told about an argument."""
        parameter = self.parameters[name]
        if parameter.is_constexpr:
            return Known(value)
        if isinstance(parameter.annotation, DType) and isinstance(value, (bool, int, float)):
            return parameter.annotation
        found = self.spec_of(name, value, not parameter.do_not_specialize)
        reads = parameter.annotation is const and isinstance(found, Pointer)
        return Pointer(found.element_ty, const=True) if reads else found

    def spec_of(self, name: str, value: Any, specialise: bool) -> Any:
        """The type of a value, or `Known` where it becomes part of the program."""
        if isinstance(value, tuple):
            parts = [self.spec_of(name, part, specialise) for part in value]
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        if value is None or isinstance(value, (DType, str, constexpr)) or _is_language(value):
            return Known(plain(value))
        if isinstance(value, bool):
            return types.int1
        if isinstance(value, int) and (dtype := _integer_type(value)):
            return Known(1) if value == 1 and specialise else dtype
        if isinstance(value, float):
            return types.float32
        if isinstance(value, torch.Tensor) and value.dtype in OF_TORCH:
            return Pointer(OF_TORCH[value.dtype])
        if isinstance(value, torch.dtype) and value in OF_TORCH:
            return Pointer(OF_TORCH[value])
        if _is_wrapped(value):
            return Pointer(value.dtype)
        if _is_descriptor(value):
            return Descriptor(_dtype(value.base), tuple(value.block_shape), value.padding)
        found = f"a tensor of {value.dtype}" if isinstance(value, torch.Tensor) else f"a {type(value).__qualname__}"
        raise self.refused(f"{name} is no argument for a kernel", expected="tensors, numbers, None", found=found)


def _usual(grid: Any) -> tuple[int, int, int] | None:
    """Three extents, where they are a tuple or a list of numbers greater than 0."""
    if (type(grid) is not tuple and type(grid) is not list) or not 1 <= len(grid) <= 3:
        return None
    x, y, z = extents = (*grid, 1, 1)[:3]
    return extents if type(x) is type(y) is type(z) is int and min(extents) > 0 else None


def num_warps(options: Mapping[str, Any]) -> int:
    """Simdgroups that a launch asks for; 4 are usual."""
    asked = options.get("num_warps")
    return asked if isinstance(asked, int) and asked > 0 else 4


def _parts(value: Any, spec: Any) -> list[Any]:
    """The tensors and numbers of an argument that the program takes at a run."""
    if isinstance(spec, Descriptor):
        return [*tensors_in(value.base), *value.shape, *value.strides, *[0] * len(value.block_shape)]
    if isinstance(spec, tuple):
        return [p for inner, part in zip(value, spec, strict=True) for p in _parts(inner, part)]
    if isinstance(spec, Known):
        return []
    return [value.base if _is_wrapped(value) else value]


def _is_language(value: Any) -> bool:
    return callable(value) and hasattr(value, "fn")


def _is_descriptor(value: Any) -> bool:
    """Whether it has the attributes of the shim's ``TensorDescriptor``."""
    return all(hasattr(value, name) for name in ("base", "shape", "strides", "block_shape"))


def _is_wrapped(value: Any) -> bool:
    """Whether it has the attributes of the shim's ``TensorWrapper``."""
    return hasattr(value, "base") and isinstance(getattr(value, "dtype", None), DType)


def tensors_in(value: Any) -> list[torch.Tensor]:
    """The tensors that an argument is or holds."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, tuple):
        return [tensor for part in value for tensor in tensors_in(part)]
    return tensors_in(value.base) if _is_descriptor(value) or _is_wrapped(value) else []


def _dtype(tensor: Any) -> DType:
    """The type of the elements of a tensor, wrapped or not."""
    return tensor.dtype if _is_wrapped(tensor) else OF_TORCH[tensor.dtype]


def _integer_type(value: int) -> DType | None:
    """int32 if that is enough, int64 or uint64; None for more bits."""
    for dtype in (types.int32, types.int64, types.uint64):
        if dtype.get_int_min_value() <= value <= dtype.get_int_max_value():
            return dtype
    return None


def _key(spec: Any) -> Any:
    if isinstance(spec, Known):
        return _key_of_constant(spec.value)
    return tuple(_key(part) for part in spec) if isinstance(spec, tuple) else spec


def _key_of_constant(value: Any) -> Any:
    """Equal for constants of which the same program is made: not for 1, 1.0 and True, nor for 0.0 and -0.0."""
    if isinstance(value, tuple):
        return (type(value), *map(_key_of_constant, value))
    if isinstance(value, float):
        return (float, value.hex())
    try:
        hash(value)
    except TypeError:
        return (type(value), repr(value))
    return (type(value), value)
