"""Floating point in 8 bits as bits, which every device can hold: to fp32 and back.

A pattern of 8 bits is a uint8. No operator of torch's fp8 types is used: mps computes nothing in them, and of one of
Triton's five formats torch has no type.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from patcher.tiles.types import DType

INFINITY = {"fp8e5": 0x7C}
"""The pattern of infinity, in the format that has one."""

NAN = {"fp8e4nv": 0x7F, "fp8e5": 0x7F, "fp8e4b8": 0x80, "fp8e5b16": 0x80}
"""The pattern that becomes of a NaN; fp8e4b15 has none, and takes its greatest number."""

GREATEST = {"fp8e4nv": 0x7E, "fp8e5": 0x7B, "fp8e4b15": 0x7F, "fp8e4b8": 0x7F, "fp8e5b16": 0x7F}
"""The pattern of the greatest number."""


def widened(bits: torch.Tensor, scalar: DType) -> torch.Tensor:
    """The numbers that patterns of ``scalar`` stand for: fp32, exact."""
    return _numbers(scalar, bits.device)[bits.long()]


def narrowed(x: torch.Tensor, scalar: DType, rounding: str | None = None) -> torch.Tensor:
    """fp32 as patterns of ``scalar``: rounded to even, or to zero for "rtz"; what is too large is the greatest."""
    digits, bias = scalar.fp_mantissa_width, scalar.exponent_bias
    size = x.abs().clamp(max=number(GREATEST[scalar.name], scalar))
    drop = 23 - digits
    whole = size.view(torch.int32)
    nearest = 0 if rounding == "rtz" else (1 << (drop - 1)) - 1 + ((whole >> drop) & 1)
    normal = ((whole + nearest) >> drop) - ((127 - bias) << digits)
    scaled = size * 2.0 ** (bias - 1 + digits)
    small = torch.trunc(scaled) if rounding == "rtz" else torch.round(scaled)
    pattern = torch.where(size < 2.0 ** (1 - bias), small.nan_to_num().to(torch.int32), normal)
    negative = x.view(torch.int32) < 0
    if NAN.get(scalar.name) == 0x80:
        negative = negative & (pattern != 0)
    pattern = torch.where(negative, pattern | 0x80, pattern)
    missing = torch.full_like(pattern, NAN.get(scalar.name, GREATEST[scalar.name]))
    return torch.where(torch.isnan(x), missing, pattern).to(torch.uint8)


def number(pattern: int, scalar: DType) -> float:
    """The number that a pattern stands for."""
    digits, bias = scalar.fp_mantissa_width, scalar.exponent_bias
    size, infinity = pattern & 0x7F, INFINITY.get(scalar.name, 0x100)
    if pattern == NAN.get(scalar.name) or size == NAN.get(scalar.name) or size > infinity:
        return float("nan")
    exponent, mantissa = size >> digits, size & ((1 << digits) - 1)
    value = 2.0 ** (max(exponent, 1) - bias - digits) * (mantissa + ((exponent > 0) << digits))
    value = float("inf") if size == infinity else value
    return -value if pattern & 0x80 else value


@lru_cache(maxsize=64)
def _numbers(scalar: DType, device: torch.device) -> torch.Tensor:
    return torch.tensor([number(pattern, scalar) for pattern in range(256)], dtype=torch.float32, device=device)
