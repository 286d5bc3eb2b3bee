"""Attention holds what it holds on a Mac: peak memory equals the arithmetic of the path that is taken."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from patcher.simulator import Device

FLOAT = 4


def inputs(batch: int, heads: int, kv_heads: int, queries: int, keys: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (batch, heads, queries, size), (batch, kv_heads, keys, size), (batch, kv_heads, keys, size)
    q, k, v = (torch.randn(shape, generator=generator).to("mps") for shape in shapes)
    return q, k, v


def peak(device: Device, q: Tensor, k: Tensor, v: Tensor, **options: object) -> int:
    """Bytes beyond what is held before. Every allocation in the cases below is a multiple of 16 KB."""
    device.reset_peak()
    before = device.memory().current
    F.scaled_dot_product_attention(q, k, v, **options)  # type: ignore[arg-type]
    return device.memory().peak - before


def floats(*sizes: int) -> int:
    return FLOAT * math.prod(sizes)


# batch, heads, heads of keys and values, queries, keys, size of a head; and the bytes besides the result
CASES: dict[str, tuple[tuple[int, int, int, int, int, int], int]] = {
    "prefill holds no scores": ((1, 2, 2, 64, 64, 64), 0),
    "prefill with grouped heads repeats none": ((1, 4, 2, 64, 64, 64), 0),
    "decoding holds the scores of its few queries": ((4, 16, 16, 1, 256, 64), floats(4, 16, 1, 256)),
    "long decoding holds 32 partial results, sums and maxima": (
        (8, 16, 16, 1, 1024, 64),
        floats(8, 16, 1, 32, 64) + 2 * floats(8, 16, 1, 32),
    ),
    "another size of head holds the scores": ((1, 2, 2, 128, 128, 48), floats(1, 2, 128, 128)),
    "and repeats grouped heads": ((1, 4, 2, 128, 128, 48), floats(1, 4, 128, 128) + 2 * floats(1, 4, 128, 48)),
}


@pytest.mark.parametrize("case", CASES)
def test_peak_memory_without_gradient_equals_the_arithmetic(device: Device, case: str) -> None:
    """The four kernels of Attention.mm: what each allocates, and the result."""
    shape, besides = CASES[case]
    q, k, v = inputs(*shape)
    grouped = shape[1] != shape[2]
    assert peak(device, q, k, v, enable_gqa=grouped) == besides + q.numel() * FLOAT


@pytest.mark.parametrize("case", CASES)
def test_results_without_gradient_are_the_cpus(case: str) -> None:
    """Within rounding: a sum of `keys` products in float32, with weights that sum to 1."""
    shape, _ = CASES[case]
    q, k, v = inputs(*shape)
    options = {"enable_gqa": shape[1] != shape[2]}
    expected = F.scaled_dot_product_attention(q.cpu(), k.cpu(), v.cpu(), **options)  # type: ignore[arg-type]
    ours = F.scaled_dot_product_attention(q, k, v, **options)  # type: ignore[arg-type]
    assert torch.allclose(ours.cpu(), expected, atol=4e-6)


def test_under_autograd_the_weights_are_kept(device: Device) -> None:
    """matmul and softmax: the weights stay for the backward, and the scores are there beside them at the peak."""
    q, k, v = (x.requires_grad_() for x in inputs(1, 2, 2, 256, 256, 64))
    scores, vectors = floats(1, 2, 256, 256), floats(1, 2, 256, 64)
    before = device.memory().current
    device.reset_peak()
    out = F.scaled_dot_product_attention(q, k, v)
    assert device.memory().current - before == scores + 3 * vectors  # weights; scaled q, scaled k, the result
    assert device.memory().peak - before >= 2 * scores + 2 * vectors
    del out


@pytest.mark.parametrize("shape", [(1, 2, 2, 64, 64, 64), (1, 2, 2, 1, 64, 64), (1, 2, 2, 16, 16, 48)])
def test_dropout_without_gradient_is_refused(device: Device, shape: tuple[int, int, int, int, int, int]) -> None:
    """No kernel has dropout, and torch takes one wherever no gradient is needed (pytorch pull request 184126)."""
    q, k, v = inputs(*shape)
    for leaves in ((q, k, v), tuple(x.clone().requires_grad_() for x in (q, k, v))):
        with torch.no_grad(), pytest.raises(NotImplementedError, match="for MPS does not support dropout"):
            F.scaled_dot_product_attention(*leaves, dropout_p=0.5)
    assert F.scaled_dot_product_attention(q.requires_grad_(), k, v, dropout_p=0.5).requires_grad


@pytest.mark.parametrize("queries", [1, 64])
def test_kernels_take_a_boolean_mask(device: Device, queries: int) -> None:
    """Of sdpa_vector and of the prefill kernel (Attention.mm) there are variants for boolean masks."""
    q, k, v = inputs(1, 2, 2, queries, 64, 64)
    mask = torch.ones(queries, 64, dtype=torch.bool).tril(64 - queries - 3).index_fill(1, torch.tensor(0), True)
    found, _ = torch.ops.aten._scaled_dot_product_attention_math_for_mps(q, k, v, mask.to("mps"))
    expected = F.scaled_dot_product_attention(q.cpu(), k.cpu(), v.cpu(), mask)
    assert torch.allclose(found.cpu(), expected, atol=4e-6)


def test_before_macos_15_views_take_the_same_path_as_autograd(device: Device) -> None:
    """Fused kernels took contiguous inputs only."""
    mac = device.mac
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs(1, 2, 2, 256, 256, 64))
    assert peak(device, q, k, v) == floats(1, 2, 256, 64)
    try:
        device._native.set_macos(14, 6)
        assert peak(device, q, k, v) >= 2 * floats(1, 2, 256, 256)
    finally:
        device.become(mac)


def test_a_boolean_mask_becomes_a_mask_that_is_added(device: Device) -> None:
    """It is converted to the query's dtype before the kernel: one more tensor of the mask's size."""
    q, k, v = inputs(1, 2, 2, 64, 64, 64)
    mask = torch.ones(64, 64, dtype=torch.bool, device="mps").tril()
    assert peak(device, q, k, v, attn_mask=mask) == floats(64, 64) + floats(1, 2, 64, 64)
    causal = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert torch.allclose(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).cpu(), causal.cpu(), atol=4e-6)
