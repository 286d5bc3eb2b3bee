"""Log-probability and entropy of given logits against float64; parity with TRL's kernel is in tests/changes."""

from __future__ import annotations

import pytest
import torch

from patcher.ops import log_prob_entropy as op
from patcher.ops.log_prob_entropy import log_prob_entropy, log_prob_entropy_backward
from tests.ops.largest import LargestFloat32
from tests.parity import assert_accurate

VOCABULARY = 61


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(), (5,), (2, 5), (2, 3, 5)])
@pytest.mark.parametrize("masked", [False, True])
def test_outputs_and_gradient_are_those_of_float64(
    dtype: torch.dtype, shape: tuple[int, ...], masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any batch, two rows to a block; masked rows hold NaN and give zero. fp32: 64 eps for sums of 61 terms."""
    monkeypatch.setattr(op, "ELEMENTS", 2 * VOCABULARY)
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(*shape, 2 * VOCABULARY, generator=generator).to(dtype)[..., ::2]
    index = torch.randint(0, VOCABULARY, shape, generator=generator)
    grads = [torch.randn(shape, generator=generator) for _ in range(2)]
    mask = torch.randint(0, 2, shape, generator=generator) if masked else None
    if mask is not None:
        logits = logits.clone()
        logits[mask == 0] = torch.nan
    found = log_prob_entropy(logits, index, 0.7, mask)
    grad_logits = log_prob_entropy_backward(*grads, logits, index, found.log_z, found.expected_logit, 0.7, mask)
    assert grad_logits.is_contiguous() and grad_logits.dtype == dtype

    kept = torch.ones(shape, dtype=torch.bool) if mask is None else mask != 0
    leaf = logits.double().masked_fill(~kept[..., None], 0.0).requires_grad_()
    log_p = (leaf / 0.7).log_softmax(-1)
    log_probs = log_p.gather(-1, index[..., None])[..., 0].masked_fill(~kept, 0.0)
    entropy = -(log_p.exp() * log_p).sum(-1).masked_fill(~kept, 0.0)
    (log_probs * grads[0].double() + entropy * grads[1].double()).sum().backward()
    assert leaf.grad is not None
    assert_accurate(found.log_probs[..., None], log_probs.detach()[..., None], roundings=64)
    assert_accurate(found.entropy[..., None], entropy.detach()[..., None], roundings=64)
    assert_accurate(grad_logits, leaf.grad, roundings=64 if dtype == torch.float32 else 2)


def test_a_missing_gradient_counts_as_zero() -> None:
    logits, index, one = torch.linspace(-2, 2, 12).view(3, 4), torch.tensor([0, 1, 3]), torch.ones(3)
    found = log_prob_entropy(logits, index)
    for missing in ((one, None), (None, one)):
        zeros = [torch.zeros(3) if grad is None else grad for grad in missing]
        rest = (logits, index, found.log_z, found.expected_logit)
        assert torch.equal(log_prob_entropy_backward(*missing, *rest), log_prob_entropy_backward(*zeros, *rest))


def test_float32_copies_are_no_larger_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 rows of bf16 logits 4 are held in fp32 at once."""
    monkeypatch.setattr(op, "ELEMENTS", 4 * VOCABULARY)
    logits, index = torch.randn(2, 20, VOCABULARY).bfloat16(), torch.zeros(2, 20, dtype=torch.int64)
    with LargestFloat32() as seen:
        found = log_prob_entropy(logits, index)
        log_prob_entropy_backward(found.log_z, found.log_z, logits, index, found.log_z, found.expected_logit)
    assert 0 < seen.elements <= 4 * VOCABULARY
