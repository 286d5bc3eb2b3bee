"""The grouped GEMM of mixtures of experts, against upstream's Triton kernels and against float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.oracle import INTERPRETED, PATCHED
from tests.parity import EPS

TOKENS, TOPK, EXPERTS, N, K = 9, 2, 5, 48, 32


def _routing() -> tuple[Tensor, Tensor]:
    """Row counts per expert (one has none) and the slots in expert order."""
    chosen = torch.randint(0, EXPERTS - 1, (TOKENS * TOPK,), generator=torch.Generator().manual_seed(1))
    return torch.bincount(chosen, minlength=EXPERTS).int(), chosen.argsort(stable=True)


def _inputs(dtype: torch.dtype, permute_x: bool, permute_y: bool) -> list[Any]:
    generator = torch.Generator().manual_seed(2)
    rows = TOKENS if permute_x else TOKENS * TOPK
    X = torch.randn(rows, K, generator=generator).to(dtype)
    W = torch.randn(EXPERTS, N, K, generator=generator).to(dtype)
    dY = torch.randn(TOKENS * TOPK, N, generator=generator).to(dtype)
    return [X, W, *_routing(), TOPK, permute_x, permute_y, dY]


def _naive(
    X: Tensor, W: Tensor, sizes: Tensor, slots: Tensor, topk: int, px: bool, py: bool, dY: Tensor
) -> list[Tensor]:
    """float64, expert by expert, with the permutations as index operations."""
    X, W, dY = X.double(), W.double(), dY.double()
    x = X[slots // topk] if px else X
    dy = dY[slots] if py else dY
    expert = torch.repeat_interleave(torch.arange(EXPERTS), sizes.long())
    y, dx = torch.einsum("mk,mnk->mn", x, W[expert]), torch.einsum("mn,mnk->mk", dy, W[expert])
    dW = torch.zeros_like(W).index_add_(0, expert, dy[:, :, None] * x[:, None])
    back = torch.empty_like(slots)
    back[slots] = torch.arange(len(slots))
    return [y[back] if py else y, dx[back] if px else dx, dW]


PERMUTATIONS = [(True, False), (False, True), (False, False)]


@pytest.mark.parametrize(("permute_x", "permute_y"), PERMUTATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_equals_the_triton_kernels_and_float64(dtype: torch.dtype, permute_x: bool, permute_y: bool) -> None:
    """Output, dX and dW: one rounding of fp32 sums of up to 48 terms: an eps and 48 fp32 eps."""
    arguments = _inputs(dtype, permute_x, permute_y)
    found = PATCHED.call("grouped_gemm:functions", *arguments)
    theirs = INTERPRETED.call("grouped_gemm:kernels", *arguments)
    for ours, upstream, exact in zip(found, theirs, _naive(*arguments), strict=True):
        scale = exact.abs().max().item()
        bound = scale * (48 * EPS[torch.float32] + (EPS[dtype] if dtype != torch.float32 else 0))
        assert (ours - upstream).abs().max().item() <= bound
        assert (ours.double() - exact).abs().max().item() <= bound
    assert torch.equal(found[2][EXPERTS - 1], torch.zeros(N, K, dtype=dtype))


def test_weights_are_multiplied_after_rounding() -> None:
    """``fuse_mul_post`` gives the kernel's bits up to the last one, with weights in token order."""
    arguments = _inputs(torch.bfloat16, False, True)
    weights = torch.rand(TOKENS * TOPK, generator=torch.Generator().manual_seed(3)).bfloat16()
    found = PATCHED.call("grouped_gemm:functions", *arguments, weights=weights)[0]
    theirs = INTERPRETED.call("grouped_gemm:kernels", *arguments, weights=weights)[0]
    torch.testing.assert_close(found, theirs, rtol=2 * EPS[torch.bfloat16], atol=0)


@pytest.mark.parametrize(("permute_x", "permute_y"), PERMUTATIONS)
@pytest.mark.parametrize("accumulate", [False, True])
def test_upstreams_autograd_function_runs(permute_x: bool, permute_y: bool, accumulate: bool) -> None:
    """GroupedGemm itself, dX summed over the chosen experts, dW added into an existing gradient in place."""
    X, W, sizes, slots, topk, px, py, dY = _inputs(torch.float32, permute_x, permute_y)
    grad = torch.ones_like(W) if accumulate else None
    found = PATCHED.call("grouped_gemm:autograd", X, W, sizes, slots, topk, px, py, dY, grad=grad)
    y, dx, dw = _naive(X, W, sizes, slots, topk, px, py, dY)
    dx = dx.view(TOKENS, topk, K).sum(1) if px else dx
    for name, exact in {"Y": y, "dX": dx, "dW": dw + (1 if accumulate else 0)}.items():
        bound = 64 * EPS[torch.float32] * exact.abs().max().item()
        assert (found[name].double() - exact).abs().max().item() <= bound, name
    assert found["inplace"] == int(accumulate)
