"""The names of ``triton.language``: objects that the front end recognises in a kernel, and that do nothing outside one.

`NAMES`, `MATH_NAMES`, `RANDOM_NAMES` and `LIBDEVICE_NAMES` are what the modules of the shim hold.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any, TypeVar

from patcher.errors import KernelNotSupported
from patcher.tiles import types
from patcher.tiles.builder import Builder
from patcher.tiles.library import FUNCTIONS
from patcher.tiles.library.elementwise import PropagateNan
from patcher.tiles.types import DType, Pointer

F = TypeVar("F", bound=Callable[..., Any])

MUST_USE = {"advance": "It moves no pointer and gives one that is further."}
"""Functions whose result a kernel must use, and what the error says of it."""


class Builtin:
    """A function of the kernel language, by its name after ``triton.language.``"""

    def __init__(self, name: str) -> None:
        self.name = name
        self.__name__ = name.rpartition(".")[2]
        self.__doc__ = FUNCTIONS[name].__doc__ if name in FUNCTIONS else None
        self._must_use_result = MUST_USE.get(name, False)

    def __call__(self, *args: Any, _semantic: Builder | None = None, **kwargs: Any) -> Any:
        """What a function with ``_semantic``, which a kernel has called, gets for its call of the language.

        Raises:
            KernelNotSupported: it is called otherwise, and works only inside a kernel.
        """
        if _semantic is not None:
            return FUNCTIONS[self.name](_semantic, *args, **kwargs)
        raise KernelNotSupported(
            f"triton.language.{self.name} was called outside a kernel; it works only inside one, which is launched as "
            "kernel[grid](...)"
        )

    def __repr__(self) -> str:
        return f"triton.language.{self.name}"


class Jitted:
    """Base of what ``@triton.jit`` makes: a function in the kernel language.

    Attributes:
        fn: the Python function.
    """

    fn: Callable[..., Any]


class ConstexprFunction:
    """A Python function that kernels may call with what is known at compile time."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        self.__name__ = fn.__name__
        self.__doc__ = fn.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*map(plain, args), **{name: plain(value) for name, value in kwargs.items()})

    def __get__(self, owner: Any, _: Any = None) -> Any:
        """Binds a method of an aggregate."""
        return self if owner is None else MethodType(self, owner)


def builtin(function: F) -> F:
    """Marks a Python function that kernels call as they call those of the language.

    It takes ``_semantic``, and hands it on to each function of the language that it calls.
    """
    return function


class tensor:  # noqa: N801
    """A value inside a kernel. Nothing makes one; it is there for annotations and ``isinstance`` in kernels."""


class tensor_descriptor:  # noqa: N801
    """A tensor descriptor inside a kernel. Nothing makes one; it is there for annotations and ``isinstance``."""


class const:  # noqa: N801
    """Annotates a pointer through which a kernel only reads; a store is an error."""


class constexpr:  # noqa: N801
    """Marks a parameter that is known when the kernel is compiled, or wraps such a value."""

    def __init__(self, value: Any) -> None:
        self.value: Any = plain(value)

    def __repr__(self) -> str:
        return f"constexpr[{self.value}]"

    def __hash__(self) -> int:
        return hash(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __index__(self) -> int:
        return operator.index(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.value)

    def __getitem__(self, index: Any) -> Any:
        return self.value[plain(index)]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.value(*args, **kwargs)

    def logical_and(self, other: Any) -> constexpr:
        """What ``self and other`` is, a constant."""
        return constexpr(self.value and plain(other))

    def logical_or(self, other: Any) -> constexpr:
        """What ``self or other`` is, a constant."""
        return constexpr(self.value or plain(other))

    @property
    def type(self) -> constexpr_type:
        """The type of constants of this value."""
        return constexpr_type(self.value)


def _operator(name: str, mark: str, reflected: bool = False) -> None:
    """Lets constants be computed with outside of kernels by the method ``mark``; the result is one."""
    compute = getattr(operator, name)

    def method(self: constexpr, *others: Any) -> constexpr:
        values = (self.value, *map(plain, others))
        return constexpr(compute(*(reversed(values) if reflected else values)))

    setattr(constexpr, f"__{mark}__", method)


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "lshift", "rshift", "and_", "or_", "xor"):
    _operator(_name, _name.rstrip("_"))
    _operator(_name, f"r{_name.rstrip('_')}", reflected=True)
for _name in ("eq", "ne", "lt", "le", "gt", "ge", "neg", "pos", "invert"):
    _operator(_name, _name)


@dataclass(frozen=True)
class constexpr_type:  # noqa: N801
    """The type of constants that are ``value``."""

    value: Any


@dataclass(frozen=True)
class tuple_type:  # noqa: N801
    """The type of tuples of such types, and of named ones with such fields."""

    types: Sequence[Any]
    fields: Sequence[str] | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, tuple_type) and (*self.types,) == (*other.types,) and self.fields == other.fields

    def __hash__(self) -> int:
        return hash((*self.types,))


def plain(value: Any) -> Any:
    """What a ``constexpr`` wraps; anything else as it is."""
    return value.value if isinstance(value, constexpr) else value


def pointer_type(element_ty: Any, address_space: int = 1, const: bool = False) -> Pointer:
    """The type of a pointer to ``element_ty``."""
    return Pointer(element_ty, const)


def block_type(element_ty: Any, shape: Any) -> types.Type:
    """The type of a block."""
    return types.block(element_ty, tuple(map(int, shape)))


TYPES: dict[str, Any] = {
    **{name: DType(name) for name in ("int1", "int8", "int16", "int32", "int64")},
    **{name: DType(name) for name in ("uint8", "uint16", "uint32", "uint64", "void")},
    "float16": types.float16,
    "bfloat16": types.bfloat16,
    "float32": types.float32,
    "float64": types.float64,
    "float8e4nv": types.float8e4nv,
    "float8e5": types.float8e5,
    "float8e4b15": types.float8e4b15,
    "float8e4b8": types.float8e4b8,
    "float8e5b16": types.float8e5b16,
    "pi32_t": Pointer(types.int32),
    "dtype": DType,
    "pointer_type": pointer_type,
    "block_type": block_type,
    "const": const,
    "constexpr": constexpr,
    "constexpr_type": constexpr_type,
    "tuple_type": tuple_type,
    "tensor": tensor,
    "tensor_descriptor": tensor_descriptor,
    "tuple": tuple,
    "PropagateNan": PropagateNan,
}

LOOPS = ("range", "static_range")

LEFT_OUT = ("_experimental_make_tensor_descriptor",)
"""Libraries that find it take it for Triton 3.2 and 3.3, of which the shim is none."""

NAMES: dict[str, Any] = {
    **TYPES,
    **{
        name: Builtin(name)
        for name in (*LOOPS, *FUNCTIONS)
        if "." not in name and name not in (*LEFT_OUT, "to", "item")
    },
}

MATH = (
    "umulhi",
    "exp",
    "exp2",
    "fma",
    "log",
    "log2",
    "cos",
    "rsqrt",
    "sin",
    "sqrt",
    "sqrt_rn",
    "abs",
    "fdiv",
    "div_rn",
)
MATH_NAMES: dict[str, Any] = {name: NAMES[name] for name in (*MATH, "erf", "floor", "ceil")}

RANDOM = ("rand", "rand4x", "randn", "randn4x", "randint", "randint4x", "philox", "philox_impl")
RANDOM_NAMES: dict[str, Any] = {
    name: NAMES[name] for name in (*RANDOM, "uint_to_uniform_float", "pair_uniform_to_normal")
}

LIBDEVICE_NAMES: dict[str, Any] = {
    name.removeprefix("libdevice."): Builtin(name) for name in FUNCTIONS if name.startswith("libdevice.")
}
