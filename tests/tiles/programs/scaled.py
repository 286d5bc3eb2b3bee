"""Products in the microscaling formats."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from tests.tiles.registry import EPS32, Make, case

FORMATS = ("e2m1", "e4m3", "e5m2", "bf16", "fp16")
M, N, K = 32, 16, 64


@triton.jit
def product_kernel(
    a_ptr,
    a_scale_ptr,
    b_ptr,
    b_scale_ptr,
    out_ptr,
    FORM_A: tl.constexpr,
    FORM_B: tl.constexpr,
    A_ALONG_K: tl.constexpr,
    B_ALONG_K: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    ROWS_A: tl.constexpr,
    COLS_A: tl.constexpr,
    ROWS_B: tl.constexpr,
    COLS_B: tl.constexpr,
    GROUPS: tl.constexpr,
):
    a = tl.load(a_ptr + tl.arange(0, ROWS_A)[:, None] * COLS_A + tl.arange(0, COLS_A)[None, :])
    b = tl.load(b_ptr + tl.arange(0, ROWS_B)[:, None] * COLS_B + tl.arange(0, COLS_B)[None, :])
    a_scale = None
    b_scale = None
    if a_scale_ptr is not None:
        a_scale = tl.load(a_scale_ptr + tl.arange(0, M)[:, None] * GROUPS + tl.arange(0, GROUPS)[None, :])
    if b_scale_ptr is not None:
        b_scale = tl.load(b_scale_ptr + tl.arange(0, N)[:, None] * GROUPS + tl.arange(0, GROUPS)[None, :])
    at = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    acc = tl.load(out_ptr + at)
    c = tl.dot_scaled(a, a_scale, FORM_A, b, b_scale, FORM_B, acc, lhs_k_pack=A_ALONG_K, rhs_k_pack=B_ALONG_K)
    tl.store(out_ptr + at, c)


def numbers(make: Make, form: str, rows: int, columns: int, pairs: int) -> torch.Tensor:
    """Random numbers of a format: halves as they are, others as bits, those of 4 bits in pairs along an axis."""
    if form in ("bf16", "fp16"):
        return make.floats(rows, columns, dtype=torch.bfloat16 if form == "bf16" else torch.float16)
    if form == "e2m1":
        rows, columns = (rows // 2, columns) if pairs == 0 else (rows, columns // 2)
    bits = make.ints(rows, columns, low=0, high=255, dtype=torch.uint8)
    return bits if form == "e2m1" else bits & {"e4m3": 0xF7, "e5m2": 0xFB}[form]  # no NaN and no infinity


def product(make: Make, forms: tuple[str, str], scales: str, along_k: tuple[bool, bool] = (True, True)) -> torch.Tensor:
    """The product of two blocks."""
    a = numbers(make, forms[0], M, K, 1 if along_k[0] else 0)
    b = numbers(make, forms[1], K, N, 0 if along_k[1] else 1)
    of_a = make.ints(M, K // 32, low=120, high=134, dtype=torch.uint8) if "a" in scales else None
    of_b = make.ints(N, K // 32, low=120, high=134, dtype=torch.uint8) if "b" in scales else None
    out = make.floats(M, N)
    sizes = (M, N, *a.shape, *b.shape, K // 32)
    product_kernel[(1,)](a, of_a, b, of_b, out, *forms, *along_k, *sizes)
    return out / out.abs().max()


SUMS = "64 products are added up in another order"


@case(each=[(a, b) for a in FORMATS[:3] for b in FORMATS[:3]], rtol=0.0, atol=K * EPS32, because=SUMS)
def scaled_by_both(make: Make, forms: tuple[str, str]) -> torch.Tensor:
    """Scales on both sides."""
    return product(make, forms, "ab")


@case(each=[(a, "fp16") for a in FORMATS[:3]], rtol=0.0, atol=K * EPS32, because=SUMS)
def scaled_by_one(make: Make, forms: tuple[str, str]) -> torch.Tensor:
    """Beside fp16, which has no scale."""
    return product(make, forms, "a")


@case(each=((False, True), (True, False), (False, False)), rtol=0.0, atol=K * EPS32, because=SUMS)
def pairs_along_the_other_axis(make: Make, along_k: tuple[bool, bool]) -> torch.Tensor:
    """Numbers of 4 bits in pairs along M and N."""
    return product(make, ("e2m1", "e2m1"), "ab", along_k)
