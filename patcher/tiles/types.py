"""The types of a block program: numbers, pointers and blocks of either, and Triton's rules for mixing them.

The methods are those of Triton's own types, because kernels call them: ``x.dtype.is_floating()``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

Shape: TypeAlias = "tuple[int, ...]"

_FP8 = {"fp8e4nv": (3, 7), "fp8e5": (2, 15), "fp8e4b15": (3, 15), "fp8e4b8": (3, 8), "fp8e5b16": (2, 16)}
_FLOATS = {**_FP8, "fp16": (10, 15), "bf16": (7, 127), "fp32": (23, 127), "fp64": (52, 1023)}
"""Bits of the mantissa, and the bias of the exponent."""
_BITS = {**dict.fromkeys(_FP8, 8), "fp16": 16, "bf16": 16, "fp32": 32, "fp64": 64}
_LONG = {"bf16": "bfloat16"}
_INTEGERS = tuple(f"{sign}{bits}" for sign in ("int", "uint") for bits in (8, 16, 32, 64))
NAMES = ("int1", *_INTEGERS, *_BITS, "void")


class DType:
    """A type of numbers, named as Triton names it: ``int1``, ``int32``, ``uint8``, ``bf16``, ``fp32``, ``fp8e4nv``."""

    SINT_TYPES: ClassVar = [name for name in _INTEGERS if not name.startswith("u")]
    UINT_TYPES: ClassVar = ["int1", *(name for name in _INTEGERS if name.startswith("u"))]
    FP_TYPES: ClassVar = list(_BITS)
    STANDARD_FP_TYPES: ClassVar = [name for name in _BITS if name not in _FP8]
    OTHER_TYPES: ClassVar = ["void"]

    def __init__(self, name: str) -> None:
        if name not in NAMES:
            raise ValueError(f"{name} is no data type of this kernel language, which has {', '.join(NAMES)}")
        self.name = name
        self.primitive_bitwidth = _BITS.get(name) or int(name.lstrip("uintvod") or 0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DType) and self.name == other.name

    def __hash__(self) -> int:
        return hash((DType, self.name))

    def __repr__(self) -> str:
        return f"triton.language.{_LONG.get(self.name) or self.name.replace('fp', 'float')}"

    def __str__(self) -> str:
        return self.name

    scalar = property(lambda self: self)
    shape: Shape = ()
    numel = 1
    int_bitwidth = property(lambda self: self.primitive_bitwidth)
    itemsize = property(lambda self: max(1, self.primitive_bitwidth // 8))
    fp_mantissa_width = property(lambda self: _FLOATS[self.name][0])
    exponent_bias = property(lambda self: _FLOATS[self.name][1])

    def is_floating(self) -> bool:
        """fp8 to fp64."""
        return self.name in _BITS

    def is_standard_floating(self) -> bool:
        """fp16 to fp64."""
        return self.is_floating() and not self.is_fp8()

    def is_fp8(self) -> bool:
        """Any format of 8 bits."""
        return self.name.startswith("fp8")

    def is_fp16(self) -> bool:
        """Half precision."""
        return self.name == "fp16"

    def is_bf16(self) -> bool:
        """Brain floating point."""
        return self.name == "bf16"

    def is_fp32(self) -> bool:
        """Single precision."""
        return self.name == "fp32"

    def is_fp64(self) -> bool:
        """Double precision."""
        return self.name == "fp64"

    def is_int(self) -> bool:
        """Integers of either sign, int1 among them."""
        return "int" in self.name

    def is_int_signed(self) -> bool:
        """int8 to int64."""
        return self.name.startswith("int") and not self.is_int1()

    def is_int_unsigned(self) -> bool:
        """uint8 to uint64, and int1, as Triton has it."""
        return self.name.startswith("uint") or self.is_int1()

    def is_int1(self) -> bool:
        """The type of masks and comparisons."""
        return self.name == "int1"

    is_bool = is_int1

    def is_int8(self) -> bool:
        """int8."""
        return self.name == "int8"

    def is_int16(self) -> bool:
        """int16."""
        return self.name == "int16"

    def is_int32(self) -> bool:
        """int32."""
        return self.name == "int32"

    def is_int64(self) -> bool:
        """int64."""
        return self.name == "int64"

    def is_uint8(self) -> bool:
        """uint8."""
        return self.name == "uint8"

    def is_uint16(self) -> bool:
        """uint16."""
        return self.name == "uint16"

    def is_uint32(self) -> bool:
        """uint32."""
        return self.name == "uint32"

    def is_uint64(self) -> bool:
        """uint64."""
        return self.name == "uint64"

    def is_fp8e4nv(self) -> bool:
        """4 bits of exponent, 3 of mantissa, no infinity."""
        return self.name == "fp8e4nv"

    def is_fp8e5(self) -> bool:
        """5 bits of exponent, 2 of mantissa."""
        return self.name == "fp8e5"

    def is_fp8e4b15(self) -> bool:
        """4 bits of exponent, of which 15 is 1, 3 of mantissa; every pattern is a number."""
        return self.name == "fp8e4b15"

    def is_fp8e4b8(self) -> bool:
        """4 bits of exponent, 3 of mantissa, no infinity and no -0, whose pattern is NaN."""
        return self.name == "fp8e4b8"

    def is_fp8e5b16(self) -> bool:
        """5 bits of exponent, 2 of mantissa, no infinity and no -0, whose pattern is NaN."""
        return self.name == "fp8e5b16"

    def is_ptr(self) -> bool:
        """No number is one."""
        return False

    def is_block(self) -> bool:
        """No number is one."""
        return False

    def get_int_min_value(self) -> int:
        """The least integer of the type."""
        return -(1 << (self.primitive_bitwidth - 1)) if self.is_int_signed() else 0

    def get_int_max_value(self) -> int:
        """The greatest integer of the type."""
        return int((1 << (self.primitive_bitwidth - self.is_int_signed())) - 1)

    @property
    def rank(self) -> int:
        """The kind, in the order of promotion: 0 int1, 1 integers, 2 floating point."""
        return 2 if self.is_floating() else 0 if self.is_int1() else 1


@dataclass(frozen=True)
class Pointer:
    """The address of a ``element_ty``, through which nothing is written where it is ``const``."""

    element_ty: Any
    const: bool = False

    scalar = property(lambda self: self)
    primitive_bitwidth = 64
    shape = ()
    numel = 1

    def __str__(self) -> str:
        return f"*{'const ' * self.const}{self.element_ty}"

    def is_ptr(self) -> bool:
        """Always."""
        return True

    def is_block(self) -> bool:
        """Never."""
        return False

    def is_floating(self) -> bool:
        """Never."""
        return False

    def is_int(self) -> bool:
        """Never."""
        return False

    is_int1 = is_int_unsigned = is_int_signed = is_bool = is_fp8 = is_int


Scalar: TypeAlias = "DType | Pointer"


@dataclass(frozen=True)
class Block:
    """A block of numbers or pointers; every extent is a power of two."""

    scalar: Any
    shape: Shape

    element_ty = property(lambda self: self.scalar)

    def __str__(self) -> str:
        return f"{self.scalar}[{', '.join(map(str, self.shape))}]"

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def is_block(self) -> bool:
        """Always."""
        return True

    def is_ptr(self) -> bool:
        """Never: its scalar may be one."""
        return False


Type: TypeAlias = "DType | Pointer | Block"

int1, int8, int16, int32, int64 = (DType(f"int{bits}") for bits in (1, 8, 16, 32, 64))
uint8, uint16, uint32, uint64 = (DType(f"uint{bits}") for bits in (8, 16, 32, 64))
float16, bfloat16, float32, float64 = DType("fp16"), DType("bf16"), DType("fp32"), DType("fp64")
float8e4nv, float8e5 = DType("fp8e4nv"), DType("fp8e5")
float8e4b15, float8e4b8, float8e5b16 = DType("fp8e4b15"), DType("fp8e4b8"), DType("fp8e5b16")
void = DType("void")

LONGEST_BLOCK = 1 << 20
"""Elements of the largest block, Triton's own limit."""


def block(scalar: Scalar, shape: Shape) -> Type:
    """The type of a block, or the scalar itself for the shape ``()``.

    Raises:
        TypeError: an extent is no power of two, or the block is larger than Triton allows.
    """
    if any(extent < 1 or extent & (extent - 1) for extent in shape):
        raise TypeError(f"the shape {list(shape)} has an extent that is no power of two")
    if math.prod(shape) > LONGEST_BLOCK:
        raise TypeError(f"the shape {list(shape)} has more than {LONGEST_BLOCK} elements")
    return Block(scalar, shape) if shape else scalar


def type_of_number(number: bool | int | float) -> DType:
    """The type that a Python number takes where nothing else decides: int32, wider if it must be, fp32, or fp64."""
    if isinstance(number, bool):
        return int1
    if isinstance(number, int):
        for dtype in (int32, uint32, int64, uint64):
            if dtype.get_int_min_value() <= number <= dtype.get_int_max_value():
                return dtype
        raise TypeError(f"the integer {number} has more than 64 bits")
    size = abs(number)
    normal = 2.0**-126 <= size <= (2 - 2.0**-23) * 2.0**127
    return float32 if normal or size == 0 or not math.isfinite(number) else float64


def promote_integers(a: DType, b: DType) -> DType:
    """C's usual arithmetic conversions: the wider type, and at equal width the unsigned one."""
    if a.int_bitwidth != b.int_bitwidth:
        return a if a.int_bitwidth > b.int_bitwidth else b
    return a if a.is_int_unsigned() else b


def promote(a: DType, a_is_number: bool, b: DType, b_is_number: bool, dividing: bool = False) -> DType:
    """The type in which ``a op b`` is computed. A Python number of no higher kind than the other side has no say."""
    if a_is_number != b_is_number:
        number, other = (a, b) if a_is_number else (b, a)
        if number.rank <= other.rank:
            a = b = other
    floats = [dtype for dtype in (a, b) if dtype.is_floating()]
    if float64 in floats:
        return float64
    if (floats and dividing) or float32 in floats:
        return float32
    if float16 in floats:
        return float16
    if floats and all(dtype == bfloat16 for dtype in (a, b)):
        return bfloat16
    if bfloat16 in floats:
        return float32
    if len(floats) == 2:
        return a if a == b else float16
    if floats:
        raise TypeError(f"{a} and {b} do not mix")
    if dividing and a.is_int_unsigned() != b.is_int_unsigned():
        raise TypeError(f"Cannot use / of {a} and {b} because they have different signedness: cast one of them")
    return promote_integers(a, b)


def broadcast_shapes(a: Shape, b: Shape) -> Shape:
    """The shape of ``a op b``: a scalar takes the other's shape, an extent of 1 the other's extent.

    Triton puts new dimensions in front, as torch does.
    """
    if not a or not b:
        return a or b
    longer = max(len(a), len(b))
    a, b = (1,) * (longer - len(a)) + a, (1,) * (longer - len(b)) + b
    if any(m != n and 1 not in (m, n) for m, n in zip(a, b, strict=True)):
        raise TypeError(f"shapes {list(a)} and {list(b)} do not go together")
    return tuple(max(m, n) for m, n in zip(a, b, strict=True))
