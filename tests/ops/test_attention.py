"""Attention against its formula in fp64, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from patcher.ops.attention import Pattern, attention, attention_forward, attention_varlen, attention_varlen_forward
from tests.ops.attention import exact_attention, exact_packed, tensors
from tests.parity import assert_accurate

FULL = Pattern(0.3, window=(6, None), causal=True, softcap=2.0)


def _grads(out: Tensor, leaves: list[Tensor], grad: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(out, leaves, grad.to(out.dtype)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_output_and_gradients_are_those_of_float64(dtype: torch.dtype) -> None:
    """Grouped heads, softcap, window, a bias and sinks: one rounding, in fp32 sums of up to 26 terms.

    The backward starts from the output as it was rounded, which costs 16 bits a second one.
    """
    given = tensors(dtype, (2, 4, 13, 8), (2, 2, 13, 8), (2, 2, 13, 6), (13, 13), (4,))
    grad = tensors(dtype, (2, 4, 13, 6))[0]
    leaves = [t.clone().requires_grad_() for t in given]
    out = attention(*leaves[:3], FULL, bias=leaves[3], sinks=leaves[4])
    wide = [t.double().requires_grad_() for t in given]
    exact = exact_attention(*wide[:3], FULL, bias=wide[3], sinks=wide[4])
    roundings = 64 if dtype == torch.float32 else 4
    assert out.dtype == dtype
    assert_accurate(out.detach().flatten(), exact.detach().flatten(), roundings=roundings)
    for found, reference in zip(_grads(out, leaves, grad), _grads(exact, wide, grad), strict=True):
        assert found.dtype == dtype
        # A query that sees one key has no gradient: the terms that cancel are as large as those of other rows.
        assert_accurate(found.flatten(), reference.flatten(), roundings=roundings)


def test_gradcheck() -> None:
    """fp64 stays fp64, so that torch can differentiate by differences."""
    pattern = Pattern(0.4, causal=True, window=(3, None), softcap=1.5, dropout_p=0.2, seed=3)
    given = [t.requires_grad_() for t in tensors(torch.float64, (1, 4, 5, 4), (1, 2, 6, 4), (1, 2, 6, 3), (5, 6), (4,))]

    def run(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, sinks: Tensor) -> Tensor:
        return attention(query, key, value, pattern, bias=bias, sinks=sinks)

    assert torch.autograd.gradcheck(run, given)


def test_packed_rows_are_those_rows() -> None:
    """An empty row, a tail behind the last one, one token: as row by row in fp64."""
    lengths = [3, 0, 5, 1]
    starts = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    leaves = [t.requires_grad_() for t in tensors(torch.float64, (11, 4, 8), (11, 2, 8), (11, 2, 6), (4,))]
    grad = tensors(torch.float64, (11, 4, 6))[0]
    out = attention_varlen(*leaves[:3], starts, starts, 5, 5, FULL, sinks=leaves[3])
    exact = exact_packed(*leaves[:3], [(n, n) for n in lengths], FULL, sinks=leaves[3])
    for found, reference in zip((out, *_grads(out, leaves, grad)), (exact, *_grads(exact, leaves, grad)), strict=True):
        torch.testing.assert_close(found, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mask", ["hidden", "-inf", "later"])
def test_a_query_that_sees_nothing_gives_zeros(mask: str) -> None:
    """As torch's own attention on the CPU does; its gradients are zeros, too."""
    query, key, value = (t.requires_grad_() for t in tensors(torch.float32, (1, 1, 3, 4), (1, 1, 2, 4), (1, 1, 2, 4)))
    bias: Tensor | None = torch.tensor([[False, False], [True, False], [True, True]])
    if mask == "-inf":
        bias = torch.zeros(3, 2).masked_fill(~bias, -torch.inf)
    pattern = Pattern(0.5, causal=mask == "later")
    out = attention(query, key, value, pattern, bias=None if mask == "later" else bias)
    expected = functional.scaled_dot_product_attention(query, key, value, bias)
    grads = torch.autograd.grad(out.square().sum(), (query, key, value))
    assert not out[0, 0, 0].any() and not grads[0][0, 0, 0].any()
    torch.testing.assert_close(out, expected)
    for found, reference in zip(grads, torch.autograd.grad(expected.square().sum(), (query, key, value)), strict=True):
        torch.testing.assert_close(found, reference)


def test_low_numbers_that_are_the_same_everywhere_give_the_mean() -> None:
    """The lowest number as a mask is a number: a row of it gives the mean, as transformers' eager attention does."""
    leaves = [t.requires_grad_() for t in tensors(torch.float32, (1, 1, 2, 4), (1, 1, 3, 4), (1, 1, 3, 4))]
    out = attention(*leaves, Pattern(0.5), bias=torch.full((2, 3), torch.finfo(torch.float32).min))
    torch.testing.assert_close(out, leaves[2].mean(2, keepdim=True).expand_as(out))
    grads = torch.autograd.grad(out.sum(), leaves)
    torch.testing.assert_close(grads[2], torch.full((1, 1, 3, 4), 2 / 3))


def test_logarithms() -> None:
    query, key, value = tensors(torch.float32, (1, 2, 5, 4), (1, 1, 7, 4), (1, 1, 7, 4))
    expected = (query @ key.transpose(-1, -2) * 0.3).logsumexp(-1)
    torch.testing.assert_close(attention_forward(query, key, value, Pattern(0.3))[1], expected)
    starts = torch.tensor([0, 5]), torch.tensor([0, 7])
    packed = [x[0].transpose(0, 1) for x in (query, key, value)]
    torch.testing.assert_close(attention_varlen_forward(*packed, *starts, 5, 7, Pattern(0.3))[1], expected[0])


def test_autocast_does_not_reach_the_sums() -> None:
    """Under bf16 autocast fp32 inputs are computed in fp32, bit for bit, forward and backward."""
    given = tensors(torch.float32, (1, 2, 5, 8), (1, 2, 5, 8), (1, 2, 5, 8))

    def run(enabled: bool) -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in given]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            out = attention(leaves[0], leaves[1], leaves[2], Pattern(0.3))
            return [out.detach(), *torch.autograd.grad(out.sum(), leaves)]

    for inside, outside in zip(run(True), run(False), strict=True):
        assert torch.equal(inside, outside)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_changes_nothing(reentrant: bool) -> None:
    """Dropout included, whose mask is a function of the seed."""
    pattern = Pattern(0.3, causal=True, dropout_p=0.4, seed=9)
    leaves = [t.requires_grad_() for t in tensors(torch.float32, (1, 2, 5, 8), (1, 2, 5, 8), (1, 2, 5, 8))]

    def run(*inputs: Tensor) -> Any:
        return attention(*inputs, pattern)

    plain = torch.autograd.grad(run(*leaves).square().sum(), leaves)
    out = checkpoint(run, *leaves, use_reentrant=reentrant)
    out.square().sum().backward()
    for leaf, expected in zip(leaves, plain, strict=True):
        assert leaf.grad is not None and torch.equal(leaf.grad, expected)


@pytest.mark.slow
def test_torch_compile_reads_it_whole() -> None:
    """Forward and backward, without a break in the graph."""
    pattern = Pattern(0.3, causal=True, softcap=2.0)
    leaves = [t.requires_grad_() for t in tensors(torch.float32, (1, 4, 16, 8), (1, 2, 16, 8), (1, 2, 16, 8))]

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attention(query * 2, key, value, pattern).square().sum()

    compiled = torch.compile(run, backend="eager", fullgraph=True)
    grads = torch.autograd.grad(compiled(*leaves), leaves)
    for found, expected in zip(grads, torch.autograd.grad(run(*leaves), leaves), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_gradient_is_differentiated_again() -> None:
    """As that of the definition in float64, which is the arithmetic's dtype here: sums of 13 terms, once more."""
    given = tensors(torch.float64, (2, 4, 13, 8), (2, 2, 13, 8), (2, 2, 13, 6), (13, 13), (4,))
    found = []
    for function in (attention, exact_attention):
        leaves = [t.clone().requires_grad_() for t in given]
        out = function(*leaves[:3], FULL, bias=leaves[3], sinks=leaves[4])
        first = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
        found.append(torch.autograd.grad(sum(x.square().sum() for x in first), leaves))
    for ours, exact in zip(*found, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "shapes",
    [
        ((1, 3, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8)),
        ((1, 2, 4, 8), (1, 2, 4, 6), (1, 2, 4, 8)),
        ((1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 5, 8)),
        ((2, 2, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8)),
        ((1, 2, 4, 8), (1, 0, 4, 8), (1, 0, 4, 8)),
        ((2, 4, 8), (2, 4, 8), (2, 4, 8)),
    ],
)
def test_shapes_that_do_not_fit(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        attention(*(torch.zeros(shape) for shape in shapes), Pattern(1.0))


def test_packed_rows_have_no_batch() -> None:
    starts = torch.tensor([0, 4])
    with pytest.raises(ValueError, match="do not fit"):
        attention_varlen(*[torch.zeros(1, 4, 2, 8)] * 3, starts, starts, 4, 4, Pattern(1.0))


@pytest.mark.parametrize("queries, keys, batch", [(0, 3, 1), (3, 0, 1), (3, 3, 0)])
def test_nothing(queries: int, keys: int, batch: int) -> None:
    query, key = torch.zeros(batch, 2, queries, 4, requires_grad=True), torch.zeros(batch, 2, keys, 4)
    out = attention(query, key, key, Pattern(1.0, causal=True))
    out.sum().backward()
    assert out.shape == query.shape and not out.any() and query.grad is not None and not query.grad.any()
