"""``tl.extra.libdevice``: mathematics of the device library. fp32 and fp64, and integers where it has them."""

from __future__ import annotations

from patcher.tiles import types
from patcher.tiles.builder import Builder, Operand
from patcher.tiles.library.elementwise import floating
from patcher.tiles.library.registry import FUNCTIONS, function
from patcher.tiles.program import Value
from patcher.tiles.types import DType

FLOATING = {
    "sqrt": ("sqrt", "sqrt_rn"),
    "rsqrt": ("rsqrt", "rsqrt_rn"),
    "exp": ("exp", "fast_expf"),
    "exp2": ("exp2",),
    "exp10": ("exp10", "fast_exp10f"),
    "expm1": ("expm1",),
    "log": ("log", "fast_logf"),
    "log2": ("log2", "fast_log2f"),
    "log10": ("log10", "fast_log10f"),
    "log1p": ("log1p",),
    "sin": ("sin", "fast_sinf"),
    "cos": ("cos", "fast_cosf"),
    "tan": ("tan", "fast_tanf"),
    "asin": ("asin",),
    "acos": ("acos",),
    "atan": ("atan",),
    "sinh": ("sinh",),
    "cosh": ("cosh",),
    "tanh": ("tanh", "fast_tanhf"),
    "asinh": ("asinh",),
    "acosh": ("acosh",),
    "atanh": ("atanh",),
    "erf": ("erf",),
    "erfc": ("erfc",),
    "erfinv": ("erfinv",),
    "lgamma": ("lgamma",),
    "bessel_i0": ("cyl_bessel_i0",),
    "bessel_i1": ("cyl_bessel_i1",),
    "bessel_j0": ("j0",),
    "bessel_j1": ("j1",),
    "bessel_y0": ("y0",),
    "bessel_y1": ("y1",),
    "floor": ("floor",),
    "ceil": ("ceil",),
    "trunc": ("trunc",),
    "round": ("round",),
    "rint": ("rint", "nearbyint"),
    "add": ("add_rn",),
    "sub": ("sub_rn",),
    "mul": ("mul_rn",),
    "div": ("div_rn", "fast_dividef"),
    "fma": ("fma", "fma_rn"),
    "pow": ("pow", "fast_powf"),
    "rem": ("fmod",),
    "atan2": ("atan2",),
    "hypot": ("hypot",),
    "copysign": ("copysign",),
}
"""Elementwise function of the program to the library's names for it."""


def _floating(fn: str, name: str) -> None:
    def call(b: Builder, *operands: Operand) -> Value:
        return floating(b, fn, *operands)

    function(f"libdevice.{name}")(call)


for _fn, _names in FLOATING.items():
    for _name in _names:
        _floating(_fn, _name)


def _tests(fn: str, *names: str) -> None:
    def test(b: Builder, x: Operand) -> Value:
        return b.map(fn, floating_value(b, x), scalar=types.int1)

    function(*(f"libdevice.{name}" for name in names))(test)


def floating_value(b: Builder, x: Operand) -> Value:
    """An operand of fp32 or fp64. Raises TypeError for another."""
    value = b.tensor(x)
    if value.number not in (types.float32, types.float64):
        raise TypeError(f"this function takes fp32 or fp64, and this is {value.type}: cast it first")
    return value


_tests("isnan", "isnan")
_tests("isinf", "isinf")
_tests("isfinite", "finitef", "isfinited")
_tests("signbit", "signbit")


def _reads_bits(source: DType, target: DType, *names: str) -> None:
    def bits(b: Builder, x: Operand) -> Value:
        value = b.tensor(x, source)
        if value.number != source:
            raise TypeError(f"this function takes {source}, and this is {value.type}")
        return b.bitcast(value, target)

    function(*(f"libdevice.{name}" for name in names))(bits)


_reads_bits(types.int32, types.float32, "int_as_float")
_reads_bits(types.uint32, types.float32, "uint_as_float")
_reads_bits(types.float32, types.int32, "float_as_int")
_reads_bits(types.float32, types.uint32, "float_as_uint")
_reads_bits(types.int64, types.float64, "longlong_as_double")
_reads_bits(types.float64, types.int64, "double_as_longlong")


def _to_integer(rounding: str, target: DType, *names: str) -> None:
    def convert(b: Builder, x: Operand) -> Value:
        return b.cast(b.map(rounding, floating_value(b, x)), target)

    function(*(f"libdevice.{name}" for name in names))(convert)


_to_integer("rint", types.int32, "float2int_rn")
_to_integer("trunc", types.int32, "float2int_rz")
_to_integer("floor", types.int32, "float2int_rd")
_to_integer("ceil", types.int32, "float2int_ru")
_to_integer("rint", types.int64, "llrint")
_to_integer("round", types.int64, "llround")


@function("libdevice.abs")
def _abs(b: Builder, x: Operand) -> Value:
    return b.map("abs", b.tensor(x))


FUNCTIONS["libdevice.mulhi"] = FUNCTIONS["umulhi"]
