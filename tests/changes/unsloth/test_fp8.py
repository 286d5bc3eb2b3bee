"""Block-quantized fp8 weights without Triton."""

from __future__ import annotations

import torch

from tests.oracle import INTERPRETED, PATCHED

BLOCK = 16
EPS = 2**-8


def _weight() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """fp8 values, their block scales, and the dense weight in float64."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(48, 32, generator=generator).to(torch.float8_e4m3fn)
    scale = torch.rand(3, 2, generator=generator) + 0.5
    dense = weight.double() * scale.double().repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    return weight, scale, dense


def test_weights_are_expanded_exactly() -> None:
    """One product of fp8 and fp32 per weight, rounded once: exact in fp32, within one eps in bf16."""
    weight, scale, dense = _weight()
    found = PATCHED.call("fp8:block_dequantize", weight, scale, BLOCK, torch.float32)
    assert torch.equal(found, dense.float())
    narrow = PATCHED.call("fp8:block_dequantize", weight, scale, BLOCK, torch.bfloat16)
    torch.testing.assert_close(narrow, dense.bfloat16(), rtol=EPS, atol=0)


def test_linear_layer_trains() -> None:
    """Output and dX are those of the dense weight: 48 terms in bf16 with fp32 sums, two roundings."""
    weight, scale, dense = _weight()
    X = torch.randn(5, 32, generator=torch.Generator().manual_seed(2)).bfloat16()
    dY = torch.ones(5, 48).bfloat16()
    Y, dX = PATCHED.call("fp8:block_linear", X, weight, scale, BLOCK, dY)
    for found, exact in ((Y, X.double() @ dense.t()), (dX, dY.double() @ dense)):
        assert (found.double() - exact).norm() <= 2 * EPS * exact.norm()


def test_expanding_blocks_equals_the_triton_kernel() -> None:
    """Bit for bit in fp32, for a weight that is no multiple of the block (given to the interpreter as fp16)."""
    weight, scale, _ = _weight()
    weight, scale = weight[:41, :27].contiguous(), scale.contiguous()
    found = PATCHED.call("fp8:dequantize_blocks", weight, scale, BLOCK, torch.float32)
    theirs = INTERPRETED.call("fp8:dequantize_blocks", weight.half(), scale, BLOCK, torch.float32)
    assert torch.equal(found, theirs)
