"""Cross entropy of logits against one label per row, exact where the label is almost certain.

``loss = log(sum_j exp(z_j)) - z_label`` with ``z = softcap * tanh(scale * x / softcap)``; a softcap or scale of 0 is
none. It is computed as ``softplus(log(sum_{j != label} exp(z_j)) - z_label)``, which does not round to 0 in fp32 when
the label leads by more than 16 nats, and its gradient at the label as ``expm1(-loss)``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.nn.functional import softplus

from patcher.ops.row_chunks import row_chunks
from patcher.ops.variants.choice import Choice

VARIANT = Choice("cross_entropy")

IGNORED = -100
"""The label of rows that have no loss and no gradient."""


def cross_entropy(logits: Tensor, labels: Tensor, softcap: float = 0, scale: float = 0) -> tuple[Tensor, Tensor]:
    """Losses of rows.

    Args:
        logits: ``[rows, vocabulary]``, fp32, fp16 or bf16.
        labels: ``[rows]`` integers; `IGNORED` rows have loss 0.
        softcap: Gemma 2's ``softcap * tanh(z / softcap)``, after ``scale``; 0 for none.
        scale: Cohere's factor; 0 for none.

    Returns:
        ``losses`` and ``logsumexp`` (over all of a row's ``z``), both ``[rows]`` in fp32.
    """
    if logits.is_mps and not is_compiling() and (variant := VARIANT[logits.dtype]):
        return variant.cross_entropy(logits, labels, softcap, scale)  # type: ignore[no-any-return]
    rows, vocabulary = logits.shape
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    logsumexp = torch.empty(rows, dtype=torch.float32, device=logits.device)
    counted, index = _counted(labels)
    for part in row_chunks(rows, vocabulary):
        z, _ = _transformed(logits[part], softcap, scale)
        at_label = z.gather(1, index[part])
        top = z.amax(1, keepdim=True)
        top = top.masked_fill_(top == -torch.inf, 0.0)
        others = (z - top).exp_().scatter_(1, index[part], 0.0).sum(1, keepdim=True)
        loss = softplus(top + others.log() - at_label)
        losses[part] = loss[:, 0].masked_fill_(~counted[part], 0.0)
        logsumexp[part] = others.add_((at_label - top).exp_()).log_().add_(top)[:, 0]
    return losses, logsumexp


def cross_entropy_backward(
    grad_output: Tensor,
    logits: Tensor,
    labels: Tensor,
    losses: Tensor,
    logsumexp: Tensor,
    softcap: float = 0,
    scale: float = 0,
) -> Tensor:
    """The gradient of ``logits`` in their dtype, as a new tensor; ``logits`` are kept.

    ``dz_j = exp(z_j - logsumexp)``, at the label ``expm1(-loss)``; then
    ``grad_logits = grad_output * dz * scale * (1 - tanh^2)``.

    Args:
        grad_output: ``[rows]``, any stride; what it holds for `IGNORED` rows does not count.
        logits: as in the forward.
        labels: as in the forward.
        losses: of the forward.
        logsumexp: of the forward.
        softcap: as in the forward.
        scale: as in the forward.
    """
    if logits.is_mps and not is_compiling() and (variant := VARIANT[logits.dtype]):
        return variant.cross_entropy_backward(  # type: ignore[no-any-return]
            grad_output, logits, labels, losses, logsumexp, softcap, scale
        )
    rows, vocabulary = logits.shape
    grad_logits = torch.empty((rows, vocabulary), dtype=logits.dtype, device=logits.device)
    counted, index = _counted(labels)
    weight = torch.where(counted, grad_output.float(), 0.0)
    if scale != 0:
        weight = weight * scale
    for part in row_chunks(rows, vocabulary):
        z, tanh = _transformed(logits[part], softcap, scale)
        dz = (z - logsumexp[part, None]).exp_()
        dz.scatter_(1, index[part], torch.expm1(-losses[part, None]))
        if tanh is not None:
            dz.mul_(1.0 - tanh.square_())
        grad_logits[part] = dz.mul_(weight[part, None])
    return grad_logits


def _counted(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which rows count, and a column for each, ``[rows, 1]`` int64 (0 for the others)."""
    counted = labels != IGNORED
    return counted, labels.to(torch.int64).masked_fill(~counted, 0)[:, None]


def _transformed(logits: Tensor, softcap: float, scale: float) -> tuple[Tensor, Tensor | None]:
    """``z`` in fp32, and the softcap's tanh if there is one. ``z`` may be ``logits`` itself."""
    z = logits.float()
    if scale != 0:
        z = z * scale
    if softcap == 0:
        return z, None
    tanh = torch.tanh(z / softcap)
    return tanh * softcap, tanh
