"""Unsloth's fused LoRA blocks, unchanged, over this project's kernels and bitsandbytes' operators."""

from __future__ import annotations

from typing import Any

import bitsandbytes.functional
import pytest
import torch

from tests.oracle import INTERPRETED, PATCHED
from tests.oracle.cases import lora_blocks
from tests.parity import EPS

WIDTH, INNER, NARROW = 20, 28, 12


def _inputs(out: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(2, 7, WIDTH, generator=generator).to(dtype),
        torch.randn(2, 7, out, generator=generator).to(dtype),
    )


def _reference(block: Any, X: torch.Tensor, dY: torch.Tensor) -> dict[str, torch.Tensor]:
    """PEFT's own forward and autograd in float64."""
    block = block.double()
    leaf = X.double().requires_grad_()
    if isinstance(block, lora_blocks.Attention):
        Q = block.q_proj(leaf)
        Y = torch.cat((block.o_proj(Q), block.k_proj(leaf), block.v_proj(leaf)), -1)
    else:
        Y = block(leaf)
    Y.backward(dY.double())
    assert leaf.grad is not None
    return {"Y": Y.detach(), "dX": leaf.grad, **lora_blocks.gradients(block)}


def _distance(found: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> dict[str, float]:
    assert found.keys() == exact.keys()
    return {n: ((found[n].double() - exact[n].double()).norm() / exact[n].double().norm()).item() for n in exact}


@pytest.mark.parametrize("kind", ["swiglu", "geglu_exact", "geglu_approx"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_mlp_is_as_exact_as_with_the_triton_kernels(kind: str, dtype: torch.dtype) -> None:
    """Against float64, output and every gradient are at most 1.5 times as far off as upstream's.

    Another order of summation (20 or 28 terms) adds up to 4 eps in fp32; in 16 bits roundings dominate.
    """
    X, dY = _inputs(WIDTH, dtype)
    arguments = {"kind": kind, "inner": INNER, "dtype": dtype, "adapter_dtype": torch.float32}
    found = PATCHED.call("fast_lora:mlp", X, dY, **arguments)
    theirs = INTERPRETED.call("fast_lora:mlp", X, dY, **arguments)
    block = lora_blocks.MLP(WIDTH, INNER, lora_blocks.ACTIVATIONS[kind])
    exact = _reference(lora_blocks.with_lora(block, dtype, torch.float32), X, dY)
    ours, upstream = _distance(found, exact), _distance(theirs, exact)
    for name, distance in ours.items():
        assert distance <= 1.5 * upstream[name] + 4 * EPS[torch.float32], name
    assert len(ours) == 2 + 3 * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_projections_are_exact(dtype: torch.dtype) -> None:
    """QKV and O contain no Triton: the distance to float64 stays within 8 eps (three chained sums of 20 terms)."""
    X, dY = _inputs(WIDTH + 2 * NARROW, dtype)
    found = PATCHED.call("fast_lora:attention", X, dY, narrow=NARROW, dtype=dtype, adapter_dtype=torch.float32)
    block = lora_blocks.with_lora(lora_blocks.Attention(WIDTH, NARROW), dtype, torch.float32)
    for name, distance in _distance(found, _reference(block, X, dY)).items():
        assert distance <= 8 * EPS[dtype], name


@pytest.mark.parametrize("half", ["forward", "backward"])
@pytest.mark.parametrize("function", ["LoRA_MLP", "LoRA_QKV", "LoRA_W"])
def test_each_half_fits_upstreams_other_half(function: str, half: str) -> None:
    """With one half of one function left out, both are upstream's: the bits of upstream's own."""
    X, dY = _inputs(WIDTH, torch.bfloat16)
    arguments = {"function": function, "inner": INNER, "narrow": NARROW, "dtype": torch.bfloat16}
    found = PATCHED.call("fast_lora:with_one_half_left_out", X, dY, left_out=(half,), **arguments)
    upstream = PATCHED.call("fast_lora:with_one_half_left_out", X, dY, left_out=("forward", "backward"), **arguments)
    assert all(torch.equal(found[name], upstream[name]) for name in upstream)
    assert len(upstream) == 2 + 2 * {"LoRA_MLP": 3, "LoRA_QKV": 3, "LoRA_W": 1}[function]


@pytest.mark.parametrize("case", ["dropout", "bias", "disabled"])
def test_what_is_not_plain_is_upstreams_own(case: str) -> None:
    """Dropout, a bias of B, adapters that are off: upstream's numbers to the bit."""
    X, dY = _inputs(WIDTH, torch.float32)
    found = PATCHED.call("fast_lora:not_plain", X, dY, INNER, case)
    upstream = PATCHED.call("fast_lora:not_plain", X, dY, INNER, case, left_out=("forward", "backward"))
    assert found.keys() == upstream.keys()
    assert all(torch.equal(found[name], upstream[name]) for name in upstream)


def test_nf4_bases_give_the_gradients_of_their_dense_weights() -> None:
    """With packed NF4 bases, adapters and input get the gradients that the dequantized weights give."""
    X, dY = _inputs(WIDTH, torch.float32)
    found = PATCHED.call("fast_lora:mlp", X, dY, "swiglu", INNER, torch.float32, torch.float32, quantized=True)
    block = lora_blocks.with_lora(
        lora_blocks.MLP(WIDTH, INNER, lora_blocks.ACTIVATIONS["swiglu"]), torch.float32, torch.float32
    )
    lora_blocks.quantize_bases(block)
    for module in block.modules():
        if hasattr(module, "base_layer"):
            packed = module.base_layer.weight
            dense = bitsandbytes.functional.dequantize_4bit(packed.data, packed.quant_state)
            module.base_layer.weight = torch.nn.Parameter(dense, requires_grad=False)
    for name, distance in _distance(found, _reference(block, X, dY)).items():
        assert distance <= 16 * EPS[torch.float32], name


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [True, False])
def test_fast_dequantize_is_bitsandbytes_own(quant_type: str, double: bool) -> None:
    """The same bits, whichever way the packed weight is turned; upstream's else branch handles nested NF4 only."""
    W = torch.randn(24, 64, generator=torch.Generator().manual_seed(2)).bfloat16()
    found = PATCHED.call("fast_lora:dequantize", W, quant_type, double)
    packed, state = bitsandbytes.functional.quantize_4bit(W, quant_type=quant_type, compress_statistics=double)
    dense = bitsandbytes.functional.dequantize_4bit(packed, state)
    assert torch.equal(found["plain"], dense)
    assert torch.equal(found["transposed"], dense.t())
    assert torch.equal(found["gemv"], found["x"] @ dense.t())
    assert torch.equal(found["out"], found["gemv"])
