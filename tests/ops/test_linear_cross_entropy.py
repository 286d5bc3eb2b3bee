"""Cross entropy from hidden states against `linear` and `cross_entropy` in float64 with autograd."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from patcher.errors import IndexBeyondTable
from patcher.ops import bounded_tiles
from patcher.ops.linear_cross_entropy import linear_cross_entropy
from tests.ops.largest import Largest
from tests.parity import EPS

Operands = tuple[Tensor, Tensor, Tensor, Tensor | None]
Reduction = Literal["mean", "sum", "none"]


def operands(seed: int, rows: int, width: int, vocabulary: int, *, bias: bool, ignored: float = 0.3) -> Operands:
    """Hidden states, weight, labels and bias; logits have a standard deviation of about 2."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, generator=generator)
    weight = torch.randn(vocabulary, width, generator=generator) * 2 * width**-0.5
    labels = torch.randint(0, vocabulary, (rows,), generator=generator)
    labels[torch.rand(rows, generator=generator) < ignored] = -100
    return hidden, weight, labels, torch.randn(vocabulary, generator=generator) if bias else None


def in_float64(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None = None,
    *,
    scale: float = 1.0,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    row_weight: Tensor | None = None,
    n_items: float | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """The same by torch's own functions."""
    z = functional.linear(hidden, weight, bias) * scale
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    losses = functional.cross_entropy(z, labels, reduction="none", label_smoothing=label_smoothing)
    losses = losses + z_loss * z.logsumexp(1).square() * (labels != -100)
    counts = (labels != -100).to(losses.dtype)
    if row_weight is not None:
        counts, losses = counts * row_weight, losses * row_weight
    if reduction == "none":
        return losses
    if n_items is not None:
        return losses.sum() / n_items
    return losses.sum() if reduction == "sum" else losses.sum() / counts.sum()


def gradients(function: Any, given_: Operands, dtype: torch.dtype, trained: bool, **options: Any) -> list[Tensor]:
    """Loss, and gradients of what is trained, in the order of the operands."""
    hidden, weight, labels, bias = given_
    leaves = [
        None if tensor is None else tensor.to(dtype, copy=True).requires_grad_(wanted)
        for tensor, wanted in ((hidden, True), (weight, trained), (bias, trained))
    ]
    loss = function(leaves[0], leaves[1], labels, leaves[2], **options)
    (loss if loss.dim() == 0 else loss @ torch.linspace(-1, 1, len(loss), dtype=loss.dtype)).backward()
    return [loss.detach(), *(leaf.grad for leaf in leaves if leaf is not None and leaf.grad is not None)]


def assert_as_float64(given_: Operands, trained: bool, dtype: torch.dtype = torch.float32, **options: Any) -> None:
    """Each within 64 units of the largest value of the exact one, or of 0.1, for fp32: sums of 200 terms, exponentials.

    Of 16 bits a product's operands, logits and result are rounded once each: 8 units, and the exponential makes an
    absolute error of a logit, up to 8 here, a relative one.
    """
    rounded = tuple(t.to(dtype) if t is not None and t.is_floating_point() else t for t in given_)
    found = gradients(linear_cross_entropy, rounded, dtype, trained, **options)  # type: ignore[arg-type]
    exact = gradients(in_float64, rounded, torch.float64, trained, **options)  # type: ignore[arg-type]
    units = 64 if dtype == torch.float32 else 8
    assert found[0].dtype == torch.float32 and len(found) == len(exact)
    for ours, expected in zip(found, exact, strict=True):
        bound = units * EPS[dtype] * max(expected.abs().max().item(), 0.1)
        torch.testing.assert_close(ours.double(), expected, rtol=0, atol=bound)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 20),
    width=st.integers(1, 33),
    vocabulary=st.integers(1, 200),
    bias=st.booleans(),
    trained=st.booleans(),
    scratch=st.sampled_from((1 << 10, 1 << 14, 32 << 20)),
    scale=st.sampled_from((1.0, 0.25, -0.5)),
    softcap=st.sampled_from((None, 3.0)),
    label_smoothing=st.sampled_from((0.0, 0.0, 0.1)),
    z_loss=st.sampled_from((0.0, 0.0, 1e-2)),
    weighted=st.booleans(),
    n_items=st.sampled_from((None, 7.0)),
    reduction=st.sampled_from(("mean", "sum", "none")),
)
def test_loss_and_gradients_are_those_of_float64(
    seed: int,
    rows: int,
    width: int,
    vocabulary: int,
    bias: bool,
    trained: bool,
    scratch: int,
    weighted: bool,
    **options: Any,
) -> None:
    """Every option with every other one, in one tile and in many."""
    given_ = operands(seed, rows, width, vocabulary, bias=bias)
    given_[2][0] = 0
    row_weight = torch.rand(rows, generator=torch.Generator().manual_seed(seed)) + 0.1 if weighted else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded_tiles, "SCRATCH", scratch)
        assert_as_float64(given_, trained, row_weight=row_weight, **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("trained", [False, True])
def test_products_of_16_bits_lose_no_more_than_their_roundings(
    dtype: torch.dtype, trained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also over several tiles: their sums are in fp32."""
    monkeypatch.setattr(bounded_tiles, "SCRATCH", 1 << 14)
    assert_as_float64(operands(3, 17, 32, 500, bias=True), trained, dtype)


def test_a_label_that_is_almost_certain_keeps_its_loss_and_gradient() -> None:
    """A margin of 25 nats in bf16: 1 - p is 1e-10 there, and a softmax in fp32 makes it 0."""
    hidden = torch.tensor([[1.0, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    weight = torch.tensor([[25.0, 1.0], [0.0, 3.0], [0.0, -2.0]], dtype=torch.bfloat16)
    loss = linear_cross_entropy(hidden, weight, torch.tensor([0]))
    loss.backward()
    assert hidden.grad is not None
    exact = torch.tensor([[25.0, 0.0, 0.0]], dtype=torch.float64)
    others = exact.softmax(1)[0, 1:]
    torch.testing.assert_close(loss.item(), others.sum().item(), rtol=2e-6, atol=0)
    gradient = others @ (weight[1:].double() - weight[0].double())
    torch.testing.assert_close(hidden.grad[0].double(), gradient, rtol=2**-8, atol=0)


def test_fp16_loses_no_gradient_of_many_items() -> None:
    """1e-7 of a gradient of 1e-2 is beyond fp16: a head's gradient keeps the digits that its own dtype has."""
    hidden, weight, labels, _ = operands(5, 8, 16, 50, bias=False, ignored=0)
    half = hidden.half(), weight.half().requires_grad_()
    linear_cross_entropy(*half, labels, n_items=2.0**14, reduction="sum").backward()
    exact = gradients(in_float64, (hidden.half(), half[1].detach(), labels, None), torch.float64, True, n_items=2.0**14)
    assert half[1].grad is not None
    largest = exact[2].abs().max().item()
    torch.testing.assert_close(half[1].grad.double(), exact[2], rtol=0, atol=2**-24 + 8 * 2**-11 * largest)


@pytest.mark.parametrize("trained", [False, True])
def test_no_logits_exist(trained: bool) -> None:
    """70 rows of 1000 tokens: nothing is larger than the scratch memory, or than the weight's own gradient."""
    with pytest.MonkeyPatch.context() as patch, Largest() as seen:
        patch.setattr(bounded_tiles, "SCRATCH", 1 << 15)
        hidden, weight, labels, _ = operands(1, 70, 4, 1000, bias=False)
        seen.elements = 0
        linear_cross_entropy(hidden.requires_grad_(), weight.requires_grad_(trained), labels).backward()
    assert 0 < seen.elements <= max(1 << 13, weight.numel() * trained)


@pytest.mark.parametrize("ignored", [False, True])
def test_a_frozen_head_keeps_one_gradient_and_no_hidden_states(ignored: bool) -> None:
    """What is saved for the backward: the gradient of the rows that count, and numbers of rows."""
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    hidden, weight, labels, _ = operands(1, 70, 64, 100, bias=False)
    labels = torch.where(torch.arange(70) < 20, -100, labels) if ignored else labels.clamp(min=0)
    with torch.autograd.graph.saved_tensors_hooks(keep, keep):
        loss = linear_cross_entropy(hidden.requires_grad_(), weight, labels)
    counted = int((labels != -100).sum())
    assert hidden.untyped_storage().data_ptr() not in saved
    assert sum(saved.values()) <= 4 * counted * 64 + 8 * 6 * 70
    loss.backward()
    assert hidden.grad is not None and hidden.grad.shape == hidden.shape and hidden.grad.is_contiguous()


def test_rows_that_do_not_count_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their hidden states may be NaN; no product has more rows than count."""
    hidden, weight, labels, _ = operands(2, 30, 8, 40, bias=False, ignored=0)
    labels[10:] = -100
    hidden[10:] = torch.nan
    rows = []
    product = torch.mm

    def counted(a: Tensor, b: Tensor, **arguments: Any) -> Tensor:
        rows.append(len(a))
        return product(a, b, **arguments)

    monkeypatch.setattr(torch, "mm", counted)
    hidden.requires_grad_()
    loss = linear_cross_entropy(hidden, weight, labels)
    loss.backward()
    assert rows and max(rows) == 10 and loss.isfinite() and hidden.grad is not None
    assert hidden.grad[10:].eq(0).all() and hidden.grad[:10].ne(0).all()


def test_no_row_that_counts_is_a_mean_of_nothing() -> None:
    """NaN as torch's mean; with a number of items 0, and zero gradients."""
    hidden, weight, labels, _ = operands(2, 5, 8, 40, bias=False)
    labels.fill_(-100)
    assert linear_cross_entropy(hidden, weight, labels).isnan()
    hidden.requires_grad_()
    weight.requires_grad_()
    loss = linear_cross_entropy(hidden, weight, labels, n_items=3)
    loss.backward()
    assert loss == 0 and hidden.grad is not None and weight.grad is not None
    assert hidden.grad.eq(0).all() and weight.grad.eq(0).all()


@pytest.mark.parametrize("label", [40, -1])
def test_a_label_outside_the_vocabulary_is_named(label: int) -> None:
    """mps would take zeros for it; torch on the CPU raises IndexError too."""
    hidden, weight, labels, _ = operands(2, 5, 8, 40, bias=False, ignored=0)
    labels[3] = label
    with pytest.raises(IndexBeyondTable, match=rf"-100, or 0 to 39\n.*{label}, and 0 more"):
        linear_cross_entropy(hidden, weight, labels)


def test_autocast_decides_the_dtype_of_products() -> None:
    """As for a linear layer: fp32 operands, logits of bf16."""
    hidden, weight, labels, _ = operands(4, 16, 32, 100, bias=False)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, labels)
    rounded = linear_cross_entropy(hidden.bfloat16(), weight.bfloat16(), labels)
    assert torch.equal(loss, rounded) and not torch.equal(loss, linear_cross_entropy(hidden, weight, labels))


def test_a_loss_with_a_gradient_is_the_one_without() -> None:
    """Bit for bit, so that a policy equals its reference."""
    hidden, weight, labels, _ = operands(4, 30, 16, 3000, bias=False)
    with torch.no_grad():
        alone = linear_cross_entropy(hidden, weight, labels, reduction="none")
    for trained in (False, True):
        weight.requires_grad_(trained)
        losses = linear_cross_entropy(hidden.requires_grad_(), weight, labels, reduction="none")
        assert torch.equal(losses.detach(), alone)


def test_a_second_backward_gives_the_same() -> None:
    """What the first one reads is kept as it was."""
    hidden, weight, labels, _ = operands(4, 9, 16, 50, bias=False)
    hidden.requires_grad_()
    loss = linear_cross_entropy(hidden, weight, labels)
    first, second = (torch.autograd.grad(loss, hidden, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
