"""Divergences from hidden states against float64; parity with TRL's kernel is in tests/changes."""

from __future__ import annotations

import pytest
import torch

from patcher.ops import chunked_divergence as op
from patcher.ops.chunked_divergence import chunked_divergence, chunked_divergence_backward
from patcher.ops.logit_tiles import Head, LogitTransform
from tests.ops.heads import HIDDEN, assert_near, head, leaves_of, row_values
from tests.ops.largest import Largest

EVERYTHING = (True, True, True)
PLAIN = LogitTransform()


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 3 rows and 16 vocabulary entries."""
    monkeypatch.setattr(op, "TOKENS", 3)
    monkeypatch.setattr(op, "VOCABULARY", 16)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_outputs_and_gradients_are_those_of_float64(beta: float) -> None:
    """Forward, mixed and reverse divergence of heads of two widths, one with a bias, over several tiles."""
    student, teacher, grad = head(1, PLAIN), head(2, PLAIN, width=HIDDEN + 8, bias=False), row_values(3)
    found = chunked_divergence(student, teacher, beta)
    saved = (found.student_log_z, found.teacher_log_z, found.auxiliary)
    gradients = chunked_divergence_backward(grad, student, teacher, beta, *saved, EVERYTHING)

    wide = leaves_of(student)
    log_ps = (wide[0] @ wide[1].t() + wide[2]).log_softmax(-1)
    log_pt = (teacher.hidden.double() @ teacher.weight.double().t()).log_softmax(-1)
    ps, pt = log_ps.exp(), log_pt.exp()
    if beta == 0.0:
        value = (pt * (log_pt - log_ps)).sum(-1)
    elif beta == 1.0:
        value = (ps * (log_ps - log_pt)).sum(-1)
    else:
        log_m = torch.log((1 - beta) * ps + beta * pt)
        value = beta * (pt * (log_pt - log_m)).sum(-1) + (1 - beta) * (ps * (log_ps - log_m)).sum(-1)
    (value @ grad.double()).backward()
    assert_near(found.divergence, value)
    assert_near(found.entropy, -(ps * log_ps).sum(-1))
    for ours, leaf in zip(gradients, wide, strict=True):
        assert_near(ours, leaf.grad)


def test_no_whole_logits_exist() -> None:
    """40 rows x 200 vocabulary entries: nothing larger than the weight's own gradient (200 x 2) is ever made."""
    one, other = (Head(torch.randn(40, 2), torch.randn(200, 2), None, PLAIN, torch.float32) for _ in range(2))
    with Largest() as seen:
        found = chunked_divergence(one, other, 0.5)
        saved = (found.student_log_z, found.teacher_log_z, found.auxiliary)
        chunked_divergence_backward(torch.ones(40), one, other, 0.5, *saved, EVERYTHING)
    assert 0 < seen.elements <= 200 * 2
