"""Log-probabilities from hidden states against float64; parity with TRL's kernel is in tests/changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from patcher.ops import chunked_log_prob as op
from patcher.ops.chunked_log_prob import chunked_log_prob, chunked_log_prob_backward
from patcher.ops.logit_tiles import Head, LogitTransform
from tests.ops.heads import ROWS, VOCABULARY, assert_near, head, leaves_of, row_values
from tests.ops.largest import Largest

EVERYTHING = (True, True, True)
PLAIN = LogitTransform()


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 3 rows and 16 vocabulary entries."""
    monkeypatch.setattr(op, "TOKENS", 3)
    monkeypatch.setattr(op, "VOCABULARY", 16)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("with_entropy", [True, False])
def test_outputs_and_gradients_are_those_of_float64(with_entropy: bool) -> None:
    """Softcap, scale, temperature and bias, over several tiles; the entropy's gradient may be missing."""
    given = head(1, LogitTransform(0.5, 5.0, 0.7))
    targets = torch.randint(0, VOCABULARY, (ROWS,), generator=torch.Generator().manual_seed(5))
    grad_log_probs, grad_entropy = row_values(2), row_values(3) if with_entropy else None
    found = chunked_log_prob(given, targets)
    assert found.entropy is not None and found.is_top1 is not None
    gradients = chunked_log_prob_backward(
        grad_log_probs, grad_entropy, given, targets, found.log_z, found.entropy, EVERYTHING
    )

    wide = leaves_of(given)
    z = 5.0 * torch.tanh((wide[0] @ wide[1].t() + wide[2]) * 0.5 / 5.0) / 0.7
    log_p = z.log_softmax(-1)
    log_probs, entropy = log_p.gather(1, targets[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)
    weighted = log_probs @ grad_log_probs.double()
    (weighted if grad_entropy is None else weighted + entropy @ grad_entropy.double()).backward()
    assert_near(found.log_probs, log_probs)
    assert_near(found.entropy, entropy)
    assert_near(found.log_sum_sq_probs, log_p.exp().square().sum(-1).log())
    assert_near(found.mean_logits, z.mean(-1))
    assert torch.equal(found.is_top1, z.argmax(-1) == targets)
    for ours, leaf in zip(gradients, wide, strict=True):
        assert_near(ours, leaf.grad)


def test_only_what_is_asked_for_is_computed() -> None:
    """Outputs by name, gradients by ``output_mask``; each of them is what it is among all."""
    given, targets = head(1, PLAIN), torch.zeros(ROWS, dtype=torch.int64)
    found = chunked_log_prob(given, targets, ("entropy",))
    assert found.entropy is not None
    assert (found.log_sum_sq_probs, found.mean_logits, found.is_top1) == (None, None, None)

    def gradients(output_mask: tuple[bool, bool, bool]) -> tuple[Tensor | None, ...]:
        assert found.entropy is not None
        return chunked_log_prob_backward(row_values(2), None, given, targets, found.log_z, found.entropy, output_mask)

    for index, whole in enumerate(gradients(EVERYTHING)):
        mask = (index == 0, index == 1, index == 2)
        for place, alone in enumerate(gradients(mask)):
            assert whole is not None and (alone is None) == (place != index)
            assert alone is None or torch.equal(alone, whole)


def test_the_product_is_rounded_before_the_bias_and_after_it() -> None:
    """As TRL's kernel does. 1 + 2^-8 is 1 in bf16, so a bias of -1 leaves 0; a linear layer would give 2^-8."""
    hidden, weight = torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 2.0**-8], [0.0, 0.0]])
    given = Head(hidden, weight, torch.tensor([-1.0, 0.0]), PLAIN, torch.bfloat16)
    found = chunked_log_prob(given, torch.tensor([0]))
    assert found.mean_logits is not None and found.mean_logits.item() == 0.0
    assert torch.nn.functional.linear(hidden, weight, given.bias)[0, 0].item() == 2.0**-8


def test_a_tie_with_an_earlier_token_is_not_top1() -> None:
    """``is_top1`` counts the first maximum, as argmax does."""
    found = chunked_log_prob(
        Head(torch.ones(2, 1), torch.zeros(4, 1), None, PLAIN, torch.float32), torch.tensor([0, 1])
    )
    assert found.is_top1 is not None and found.is_top1.tolist() == [True, False]


def test_no_rows_give_no_rows_and_zero_gradients() -> None:
    """A microbatch whose labels are all masked trains on nothing instead of failing."""
    weight, nothing = torch.randn(VOCABULARY, 4), torch.empty(0)
    given = Head(torch.empty(0, 4), weight, None, PLAIN, torch.float32)
    found = chunked_log_prob(given, torch.empty(0, dtype=torch.int64))
    assert all(column is not None and len(column) == 0 for column in found)
    grad_hidden, grad_weight, grad_bias = chunked_log_prob_backward(
        nothing, None, given, torch.empty(0, dtype=torch.int64), nothing, nothing, EVERYTHING
    )
    assert grad_hidden is not None and grad_hidden.shape == (0, 4) and grad_bias is None
    assert grad_weight is not None and torch.equal(grad_weight, torch.zeros_like(weight))


@pytest.mark.usefixtures("small_tiles")
def test_no_whole_logits_exist() -> None:
    """40 rows x 200 vocabulary entries: nothing larger than the weight's own gradient (200 x 2) is ever made."""
    targets = torch.randint(0, 200, (40,))
    given = Head(torch.randn(40, 2), torch.randn(200, 2), None, PLAIN, torch.float32)
    with Largest() as seen:
        found = chunked_log_prob(given, targets)
        assert found.entropy is not None
        chunked_log_prob_backward(
            torch.ones(40), torch.ones(40), given, targets, found.log_z, found.entropy, EVERYTHING
        )
    assert 0 < seen.elements <= 200 * 2


def test_no_matmul_of_the_backward_sums_over_a_long_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """``grad_logits @ weight`` runs over the vocabulary; from 32767 terms on, mps gives wrong numbers."""
    longest = 0
    addmm_ = torch.Tensor.addmm_

    def spy(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
        nonlocal longest
        longest = max(longest, a.shape[1])
        return addmm_(total, a, b)

    monkeypatch.setattr(torch.Tensor, "addmm_", spy)
    monkeypatch.setattr(op, "VOCABULARY", 40000)
    given = Head(torch.randn(2, 2), torch.randn(40000, 2), None, PLAIN, torch.float32)
    targets = torch.tensor([1, 2])
    found = chunked_log_prob(given, targets, (), 40000)
    chunked_log_prob_backward(torch.ones(2), None, given, targets, found.log_z, found.log_z, EVERYTHING, 40000)
    assert 0 < longest < 32767
