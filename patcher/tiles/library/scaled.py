"""Products of blocks in the microscaling formats: numbers of 4 to 16 bits, of which a group has one scale."""

from __future__ import annotations

from patcher.tiles import types
from patcher.tiles.builder import Builder
from patcher.tiles.library.elementwise import dot
from patcher.tiles.library.registry import function
from patcher.tiles.library.shapes import expand_dims, interleave, trans
from patcher.tiles.program import Value
from patcher.tiles.types import DType

FORMATS = {"e4m3": types.float8e4nv, "e5m2": types.float8e5, "bf16": types.bfloat16, "fp16": types.float16}
"""The formats that are types; e2m1 is 4 bits, two of which are a uint8 with the first in the lower half."""


@function()
def dot_scaled(
    b: Builder,
    lhs: Value,
    lhs_scale: Value | None,
    lhs_format: str,
    rhs: Value,
    rhs_scale: Value | None,
    rhs_format: str,
    acc: Value | None = None,
    fast_math: bool = False,
    lhs_k_pack: bool = True,
    rhs_k_pack: bool = True,
    out_dtype: DType = types.float32,
) -> Value:
    """``acc + (lhs * lhs_scale) @ (rhs * rhs_scale)`` in fp32.

    A scale is a power of two: a uint8 less 127, 255 for NaN; or a number in fp8. ``lhs_scale`` is ``[M, K // group]``,
    ``rhs_scale`` ``[N, K // group]``, None for no scale. ``lhs_k_pack`` and ``rhs_k_pack`` say whether 4-bit numbers
    stand in pairs along K, or along M and N.
    """
    if out_dtype != types.float32:
        raise TypeError(f"dot_scaled gives fp32, and out_dtype is {out_dtype}")
    half = "fp16" in (lhs_format, rhs_format)
    left = _numbers(b, lhs, lhs_format, -1 if lhs_k_pack else -2)
    right = trans(b, _numbers(b, rhs, rhs_format, -2 if rhs_k_pack else -1))
    groups = [_group(x, scale) for x, scale in ((left, lhs_scale), (right, rhs_scale)) if scale is not None]
    if len(set(groups)) == 2:
        raise TypeError("Operands must have the same scale factor; (lhs: {} vs rhs: {})".format(*groups))
    left, right = _scaled(b, left, lhs_scale, half), _scaled(b, right, rhs_scale, half)
    return dot(b, left, trans(b, right), acc)


def _numbers(b: Builder, packed: Value, form: str, axis: int) -> Value:
    """The numbers of a block in ``form`` as fp32; those of 4 bits stand in pairs along ``axis``, -1 or -2."""
    if form in FORMATS:
        scalar = FORMATS[form]
        bits = types.DType(f"uint{scalar.primitive_bitwidth}")
        if packed.scalar not in (scalar, bits):
            raise TypeError(f"dot_scaled of {form} takes {scalar} or {bits}, and this is {packed.type}")
        return b.cast(b.bitcast(packed, scalar), types.float32)
    if form != "e2m1":
        raise ValueError(f"dot_scaled knows e2m1, {', '.join(FORMATS)}, and not {form!r}")
    if packed.scalar != types.uint8:
        raise TypeError(f"dot_scaled of e2m1 takes two numbers as a uint8, and this is {packed.type}")
    if axis == -2:
        return trans(b, _numbers(b, trans(b, packed), form, -1))
    return interleave(b, _of_four_bits(b, b.bits("and", packed, 15)), _of_four_bits(b, b.bits("shr", packed, 4)))


def _of_four_bits(b: Builder, code: Value) -> Value:
    """0, 0.5, 1, 1.5, 2, 3, 4, 6 of the lower three bits, negative where the fourth is set."""
    size = b.cast(b.bits("and", code, 7), types.uint32)
    normal = b.bitcast(b.add(b.bits("shl", size, 22), 126 << 23), types.float32)
    value = b.where(b.compare("lt", size, 2), b.mul(b.cast(size, types.float32), 0.5), normal)
    return b.where(b.compare("ge", code, 8), b.neg(value), value)


def _scaled(b: Builder, x: Value, scale: Value | None, half: bool) -> Value:
    """``x`` ``[..., K]`` times its scales ``[..., K // group]``; beside fp16 the least of them is 0."""
    if scale is None:
        return x
    group = _group(x, scale)
    factors = expand_dims(b, _factors(b, scale, half), -1)
    return b.mul(x, b.reshape(b.broadcast(factors, (*scale.shape, group)), x.shape))


def _group(x: Value, scale: Value) -> int:
    """How many numbers along K have one scale. Raises TypeError where scales do not fit the block."""
    group, rest = divmod(x.shape[-1], scale.shape[-1] if scale.shape else 1)
    if rest or scale.shape[:-1] != x.shape[:-1]:
        raise TypeError(f"dot_scaled of {list(x.shape)} with scales {list(scale.shape)}: the shapes do not fit")
    return group


def _factors(b: Builder, scale: Value, half: bool) -> Value:
    if scale.number.is_fp8():
        return b.cast(scale, types.float32)
    exponent = b.cast(b.bitcast(scale, types.uint8), types.uint32)
    least = 0 if half else 1 << 22  # 2**-127, which fp32 has as a subnormal number
    bits = b.where(b.compare("eq", exponent, 0), least, b.bits("shl", exponent, 23))
    return b.where(b.compare("eq", exponent, 255), float("nan"), b.bitcast(bits, types.float32))
