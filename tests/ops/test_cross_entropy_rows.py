"""Statistics of softmax and gradients with a factor against float64; losses are in test_linear_cross_entropy.py."""

from __future__ import annotations

import pytest
import torch

from patcher.ops import bounded_tiles
from patcher.ops.cross_entropy_rows import STATISTICS, Rows, Terms, cross_entropy_rows, cross_entropy_rows_backward
from patcher.ops.logit_tiles import LogitTransform
from tests.ops.heads import ROWS, VOCABULARY, assert_near, head, leaves_of, row_values

INDEX = torch.tensor([0, 2, 5, 6])


@pytest.mark.parametrize("transform", [LogitTransform(), LogitTransform(0.5, 5.0, 0.7), LogitTransform(-2.0)])
@pytest.mark.parametrize("scratch", [1 << 10, 32 << 20])
def test_statistics_and_gradient_are_those_of_float64(
    transform: LogitTransform, scratch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them in one walk, for some rows, in one tile and in several."""
    monkeypatch.setattr(bounded_tiles, "SCRATCH", scratch)
    given = head(1, transform)
    labels = torch.randint(0, VOCABULARY, (len(INDEX),), generator=torch.Generator().manual_seed(5))
    found = cross_entropy_rows(given, labels, INDEX, wanted=STATISTICS, gradient=torch.float32, factor=-0.5)

    hidden, weight, bias = leaves_of(given)
    y = (hidden[INDEX] @ weight.t() + bias) * transform.scale
    z = (transform.softcap * torch.tanh(y / transform.softcap) if transform.softcap else y) / transform.temperature
    log_p = z.log_softmax(1)
    nll = -log_p.gather(1, labels[:, None])[:, 0]
    (-0.5 * nll.sum()).backward()
    assert hidden.grad is not None
    assert_near(found.nll, nll)
    assert_near(found.log_z, z.logsumexp(1))
    assert_near(found.entropy, -(log_p.exp() * log_p).sum(1))
    assert_near(found.mean, z.mean(1))
    assert_near(found.log_sum_square, log_p.exp().square().sum(1).log())
    assert_near(found.gradient, hidden.grad[INDEX])
    assert found.is_top1 is not None and torch.equal(found.is_top1, z.argmax(1) == labels)


@pytest.mark.parametrize("scratch", [1 << 10, 32 << 20])
def test_the_entropy_has_a_gradient(scratch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together with the loss's, each row with factors of its own."""
    monkeypatch.setattr(bounded_tiles, "SCRATCH", scratch)
    given, labels, terms = head(1, LogitTransform(0.5, 5.0, 0.7)), torch.arange(ROWS), Terms()
    grad_losses, grad_entropy = row_values(2), row_values(3)
    rows = cross_entropy_rows(given, labels, wanted=("entropy",))
    found = cross_entropy_rows_backward(
        grad_losses, given, labels, None, rows, terms, (True,) * 3, grad_entropy=grad_entropy
    )
    wide = leaves_of(given)
    z = 5.0 * torch.tanh((wide[0] @ wide[1].t() + wide[2]) * 0.5 / 5.0) / 0.7
    log_p = z.log_softmax(1)
    entropy = -(log_p.exp() * log_p).sum(1)
    (entropy @ grad_entropy.double() - log_p.gather(1, labels[:, None])[:, 0] @ grad_losses.double()).backward()
    for ours, leaf in zip(found, wide, strict=True):
        assert_near(ours, leaf.grad)


def test_the_likeliest_token_is_known() -> None:
    """A label that is the maximum, and one that is not."""
    given = head(2, LogitTransform())
    z = given.hidden @ given.weight.t() + given.bias
    found = cross_entropy_rows(given, z.argmax(1), wanted=("is_top1",))
    assert found.is_top1 is not None and found.is_top1.all() and found.entropy is None
    other = cross_entropy_rows(given, z.argmin(1), wanted=("is_top1",))
    assert other.is_top1 is not None and not other.is_top1.any()


@pytest.mark.parametrize("mask", [(True, False, False), (False, True, False), (False, False, True)])
def test_only_the_gradients_that_are_asked_for_are_computed(mask: tuple[bool, bool, bool]) -> None:
    """Each is what it is among all."""
    given, labels, terms = head(1, LogitTransform(softcap=4.0)), torch.arange(ROWS), Terms(0.1, 0.01)
    rows, grad = cross_entropy_rows(given, labels, terms=terms), torch.linspace(-1, 1, ROWS)
    alone, together = (
        cross_entropy_rows_backward(grad, given, labels, None, rows, terms, wanted) for wanted in (mask, (True,) * 3)
    )
    for wanted, one, whole in zip(mask, alone, together, strict=True):
        assert whole is not None and (one is None) == (not wanted)
        assert one is None or torch.equal(one, whole)


def test_a_smoothed_loss_has_no_gradient_in_one_walk() -> None:
    """It needs the softmax; it is not computed wrong."""
    with pytest.raises(ValueError, match="backward"):
        cross_entropy_rows(head(1, LogitTransform()), torch.arange(ROWS), terms=Terms(0.1), gradient=torch.float32)


def test_no_rows_give_no_rows() -> None:
    """A batch whose labels are all masked."""
    given, nothing = head(1, LogitTransform()), torch.empty(0, dtype=torch.int64)
    found = cross_entropy_rows(given, nothing, nothing, wanted=STATISTICS, gradient=torch.float32)
    assert all(column is not None and len(column) == 0 for column in found)
    assert found.gradient is not None and found.gradient.shape == (0, given.hidden.size(1))
    assert isinstance(found, Rows)
