"""Cross entropy against float64 autograd; parity with Unsloth's kernels is in tests/changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from patcher.ops import row_chunks
from patcher.ops.cross_entropy import cross_entropy, cross_entropy_backward
from tests.parity import assert_accurate


def _float64(logits: Tensor, labels: Tensor, grad: Tensor, softcap: float, scale: float) -> tuple[Tensor, Tensor]:
    leaf = logits.double().requires_grad_()
    z = leaf * (scale or 1)
    z = softcap * torch.tanh(z / softcap) if softcap else z
    losses = functional.cross_entropy(z, labels, reduction="none", ignore_index=-100)
    losses.backward(grad.double())
    assert leaf.grad is not None
    return losses.detach(), leaf.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("softcap", "scale"), [(0, 0), (30.0, 0), (0, 0.0625), (20.0, 2.0), (0, -1.5)])
def test_losses_and_gradient_are_those_of_float64(
    dtype: torch.dtype, softcap: float, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ignored rows, an odd vocabulary, several pieces: losses in fp32, the gradient with one rounding of its dtype."""
    monkeypatch.setattr(row_chunks, "ELEMENTS", 300)
    generator = torch.Generator().manual_seed(1)
    logits = (4 * torch.randn(7, 143, generator=generator)).to(dtype)
    labels = torch.randint(0, 143, (7,), generator=generator)
    labels[[0, 4]] = -100
    grad = torch.rand(7, generator=generator)
    losses, logsumexp = cross_entropy(logits, labels, softcap, scale)
    dlogits = cross_entropy_backward(grad, logits, labels, losses, logsumexp, softcap, scale)
    exact_losses, exact_dlogits = _float64(logits, labels, grad, softcap, scale)
    assert losses.dtype == torch.float32 and dlogits.dtype == dtype
    assert_accurate(losses, exact_losses, roundings=16)
    assert_accurate(dlogits, exact_dlogits, roundings=32 if dtype == torch.float32 else 2)
    assert dlogits[[0, 4]].eq(0).all()


def test_a_label_that_is_almost_certain_keeps_its_loss_and_gradient() -> None:
    """A margin of 25 nats: logsumexp - x would be 0 in fp32, the loss is 6 exp(-25).

    Its exponent log(6) - 25 is known in fp32 to half an ulp of 23.2, 1e-6, which is the loss's relative error.
    """
    logits = torch.zeros(1, 7)
    logits[0, 2] = 25
    labels = torch.tensor([2])
    losses, logsumexp = cross_entropy(logits, labels)
    dlogits = cross_entropy_backward(torch.ones(1), logits, labels, losses, logsumexp)
    exact_losses, exact_dlogits = _float64(logits, labels, torch.ones(1), 0, 0)
    torch.testing.assert_close(losses.double(), exact_losses, rtol=2e-6, atol=0)
    torch.testing.assert_close(dlogits.double(), exact_dlogits, rtol=1e-5, atol=0)


def test_masked_vocabulary_has_no_part_in_the_loss() -> None:
    """Logits of -inf (constrained decoding) count as probability 0, and get a zero gradient."""
    logits = torch.randn(2, 9, generator=torch.Generator().manual_seed(2))
    logits[:, 5:] = -torch.inf
    labels = torch.tensor([1, 4])
    losses, logsumexp = cross_entropy(logits, labels)
    dlogits = cross_entropy_backward(torch.ones(2), logits, labels, losses, logsumexp)
    assert_accurate(losses, _float64(logits[:, :5], labels, torch.ones(2), 0, 0)[0], roundings=8)
    assert dlogits[:, 5:].eq(0).all() and dlogits.isfinite().all()
