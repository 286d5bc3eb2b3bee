"""Floating point in 8 bits, of five formats."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from tests.tiles.registry import Make, case

OF_TORCH = {
    "float8e4nv": torch.float8_e4m3fn,
    "float8e5": torch.float8_e5m2,
    "float8e4b8": torch.float8_e4m3fnuz,
    "float8e5b16": torch.float8_e5m2fnuz,
}
NOT_TO_EVEN = "the interpreter rounds halves up, and wraps what is too large"


@triton.jit
def cast_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(out_ptr + at, tl.load(x_ptr + at).to(out_ptr.dtype.element_ty))


def casted(x: torch.Tensor, source: str | None, target: str | None, out: torch.Tensor) -> torch.Tensor:
    """What a kernel makes of ``x``; formats name what tensors of uint8 hold."""
    given = triton.reinterpret(x, getattr(tl, source)) if source else x
    into = triton.reinterpret(out, getattr(tl, target)) if target else out
    cast_kernel[(x.numel() // 64,)](given, into, 64)
    return out


@case(each=("float8e4nv", "float8e5", "float8e4b15", "float8e4b8", "float8e5b16"))
def every_pattern_as_a_number(make: Make, form: str) -> torch.Tensor:
    """What 256 patterns stand for, those of NaN and infinity aside, which the interpreter takes for numbers."""
    bits = torch.arange(256, dtype=torch.int16).to(torch.uint8)
    special = {"float8e4nv": (bits & 0x7F) == 0x7F, "float8e5": (bits & 0x7C) == 0x7C}
    odd = special.get(form, (bits == 0x80) & (form != "float8e4b15"))
    return casted(torch.where(odd, torch.zeros_like(bits), bits), form, None, make.out(256))


@case(each=tuple(OF_TORCH), instead=NOT_TO_EVEN)
def numbers_as_patterns(make: Make, form: str) -> tuple[torch.Tensor, torch.Tensor]:
    """fp32 rounded to even; what is too large becomes the greatest number, as torch's types have them."""
    limit, bits = torch.finfo(OF_TORCH[form]).max, torch.arange(256, dtype=torch.int16).to(torch.uint8)
    exact = bits.view(OF_TORCH[form]).float().nan_to_num(0.0, 0.0, 0.0)
    between = (exact[1:] + exact[:-1]) / 2
    x = torch.cat([exact, between, make.floats(512) * 100, make.floats(1024) * 1e-2, make.floats(256) * limit])
    x = torch.cat([x, torch.tensor([float("inf"), -float("inf"), 1e-30, -0.0] * 16 + [0.5])])
    found = casted(x, None, form, torch.zeros(len(x), dtype=torch.uint8))
    return found, x.clamp(-limit, limit).to(OF_TORCH[form]).view(torch.uint8)


@triton.jit
def arithmetic_kernel(x_ptr, y_ptr, sums_ptr, rest_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x, y = tl.load(x_ptr + at), tl.load(y_ptr + at)
    tl.store(sums_ptr + at, tl.where(x > y, tl.abs(x), -y))
    product = tl.dot(tl.reshape(x, (8, 32)), tl.reshape(y, (8, 32)).trans())
    tl.store(rest_ptr, tl.max(x.to(tl.float32), axis=0) + tl.sum(product))


@case(each=tuple(OF_TORCH), instead="the interpreter computes with the patterns as if they were integers")
def computed_with(make: Make, form: str) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Comparisons, signs and products."""
    x, y = (make.floats(256).to(OF_TORCH[form]) for _ in range(2))
    sums, rest = torch.zeros(256, dtype=torch.uint8), torch.zeros(1)
    wrapped = [triton.reinterpret(t, getattr(tl, form)) for t in (x.view(torch.uint8), y.view(torch.uint8), sums)]
    arithmetic_kernel[(1,)](*wrapped, rest, 256)
    a, b = x.float(), y.float()
    chosen = torch.where(a > b, a.abs(), -b).to(OF_TORCH[form]).view(torch.uint8)
    total = (a.reshape(8, 32).double() @ b.reshape(8, 32).double().t()).sum().float() + a.max()
    return (sums, torch.isclose(rest, total, rtol=1e-5)), (chosen, torch.tensor([True]))
