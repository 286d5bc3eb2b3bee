"""The elementwise functions of a program on torch tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch

from patcher.tiles.on_torch.carriers import NATIVE, TOP, cast, wrap
from patcher.tiles.on_torch.narrow import widened
from patcher.tiles.types import DType, Scalar, float32

Tensor = torch.Tensor


def _away_from_zero(x: Tensor) -> Tensor:
    whole = torch.trunc(x)
    return torch.where((x - whole).abs() >= 0.5, whole + torch.sign(x), whole)


UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "neg": torch.neg,
    "abs": torch.abs,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "exp10": lambda x: torch.pow(10.0, x),
    "expm1": torch.expm1,
    "log": torch.log,
    "log2": torch.log2,
    "log10": torch.log10,
    "log1p": torch.log1p,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "asin": torch.asin,
    "acos": torch.acos,
    "atan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "tanh": torch.tanh,
    "asinh": torch.asinh,
    "acosh": torch.acosh,
    "atanh": torch.atanh,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "erf": torch.erf,
    "erfc": torch.erfc,
    "erfinv": torch.erfinv,
    "lgamma": torch.lgamma,
    "bessel_i0": torch.special.i0,
    "bessel_i1": torch.special.i1,
    "bessel_j0": torch.special.bessel_j0,
    "bessel_j1": torch.special.bessel_j1,
    "bessel_y0": torch.special.bessel_y0,
    "bessel_y1": torch.special.bessel_y1,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "trunc": torch.trunc,
    "rint": torch.round,
    "round": _away_from_zero,
    "isnan": torch.isnan,
    "isinf": torch.isinf,
    "isfinite": torch.isfinite,
    "signbit": torch.signbit,
}

BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "minnan": torch.minimum,
    "maxnan": torch.maximum,
    "and": torch.bitwise_and,
    "or": torch.bitwise_or,
    "xor": torch.bitwise_xor,
    "pow": torch.pow,
    "atan2": torch.atan2,
    "hypot": torch.hypot,
    "copysign": torch.copysign,
}

COMPARED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
    "eq": torch.eq,
    "ne": torch.ne,
}


def apply(fn: str, operands: list[Tensor], scalars: list[Scalar]) -> Tensor:
    """``fn`` of tensors that carry values of ``scalars``; the result carries its own type."""
    first = scalars[0]
    if fn == "where":
        condition, x, y = operands
        return torch.where(condition, x, y)
    if isinstance(first, DType) and first.is_fp8():
        return _in_fp32(fn, operands, first)
    if fn in SPECIAL:
        return SPECIAL[fn](first, *operands)
    if fn in COMPARED:
        return COMPARED[fn](*_in_order(first, *operands))
    if fn in UNARY:
        return wrap(UNARY[fn](operands[0]), first)
    return wrap(_boolean(fn, *operands) if operands[0].dtype == torch.bool else BINARY[fn](*operands), first)


def _in_fp32(fn: str, operands: list[Tensor], scalar: DType) -> Tensor:
    result = apply(fn, [widened(operand, scalar) for operand in operands], [float32] * len(operands))
    return cast(result, float32, scalar) if result.dtype == torch.float32 else result


def _boolean(fn: str, x: Tensor, y: Tensor) -> Tensor:
    """int1 wraps at 2: a sum is an exclusive or, a product an and."""
    return BINARY[{"add": "xor", "sub": "xor", "mul": "and"}.get(fn, fn)](x, y)


def _in_order(scalar: Scalar, *operands: Tensor) -> list[Tensor]:
    """Operands in torch's order: the top bit of uint64 counts upwards."""
    return [x ^ TOP if scalar.name == "uint64" else x for x in operands]  # type: ignore[union-attr]


def _extreme(name: str) -> Callable[[Scalar, Tensor, Tensor], Tensor]:
    floats, others = (torch.fmin, torch.minimum) if name == "min" else (torch.fmax, torch.maximum)

    def extreme(scalar: Scalar, x: Tensor, y: Tensor) -> Tensor:
        if x.dtype.is_floating_point:
            return floats(x, y)
        return _in_order(scalar, others(*_in_order(scalar, x, y)))[0]

    return extreme


def _not(scalar: Scalar, x: Tensor) -> Tensor:
    return wrap(torch.bitwise_not(x), scalar)


def _shl(scalar: Scalar, x: Tensor, by: Tensor) -> Tensor:
    return wrap(torch.bitwise_left_shift(x, by), scalar)


def _shr(scalar: Scalar, x: Tensor, by: Tensor) -> Tensor:
    shifted = torch.bitwise_right_shift(x, by)
    if scalar.name != "uint64":  # type: ignore[union-attr]
        return shifted
    keep = torch.bitwise_not(torch.bitwise_left_shift(torch.full_like(by, -1), 64 - by))
    return torch.where(by == 0, x, shifted & keep)


def _idiv(scalar: Scalar, x: Tensor, y: Tensor) -> Tensor:
    """Truncated as in C; what a division by 0 gives is unspecified, and no error."""
    y = torch.where(y == 0, torch.ones_like(y), y)
    if scalar.name != "uint64":  # type: ignore[union-attr]
        return torch.div(x, y, rounding_mode="trunc")
    half = torch.div((x >> 1) & ~TOP, torch.where(y < 0, torch.ones_like(y), y), rounding_mode="trunc") << 1
    rest = x - half * y
    small = half + ((rest ^ TOP) >= (y ^ TOP))
    return torch.where(y < 0, ((x ^ TOP) >= (y ^ TOP)).long(), small)


def _rem(scalar: Scalar, x: Tensor, y: Tensor) -> Tensor:
    if x.dtype.is_floating_point:
        return torch.fmod(x, y)
    return wrap(x - _idiv(scalar, x, y) * y, scalar)


def _umulhi(scalar: Scalar, x: Tensor, y: Tensor) -> Tensor:
    if scalar.primitive_bitwidth == 32:
        product = (x.long() & 0xFFFFFFFF) * (y.long() & 0xFFFFFFFF)
        return wrap(product >> 32, scalar).to(x.dtype)
    low = 0xFFFFFFFF
    x0, x1, y0, y1 = x & low, (x >> 32) & low, y & low, (y >> 32) & low
    middle = x1 * y0 + ((x0 * y0 >> 32) & low)
    other = x0 * y1 + (middle & low)
    return x1 * y1 + ((middle >> 32) & low) + ((other >> 32) & low)


def _fma(scalar: Scalar, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Rounded once where a wider type is there; mps has none beyond fp32."""
    wider = {"fp16": torch.float32, "bf16": torch.float32, "fp32": torch.float64}.get(scalar.name)  # type: ignore[union-attr]
    if wider is None or (wider is torch.float64 and x.device.type != "cpu"):
        return wrap(x * y + z, scalar)
    return (x.to(wider) * y.to(wider) + z.to(wider)).to(NATIVE[scalar.name])  # type: ignore[union-attr]


SPECIAL: dict[str, Callable[..., Tensor]] = {
    "min": _extreme("min"),
    "max": _extreme("max"),
    "not": _not,
    "shl": _shl,
    "shr": _shr,
    "idiv": _idiv,
    "rem": _rem,
    "umulhi": _umulhi,
    "fma": _fma,
}
