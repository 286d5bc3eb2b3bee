"""`patcher.ops.cross_entropy` as Metal shaders: one launch forward, which reads the logits once, and one backward."""

from __future__ import annotations

import torch
from torch import Tensor

from patcher.ops.metal.library import group_of, library, rows_of

EACH = 4
"""Elements of a thread; as in the source."""

GROUP = 256


def cross_entropy(logits: Tensor, labels: Tensor, softcap: float = 0, scale: float = 0) -> tuple[Tensor, Tensor]:
    """As `patcher.ops.cross_entropy.cross_entropy`."""
    logits, labels = rows_of(logits), labels.contiguous()
    rows, vocabulary = logits.shape
    losses, logsumexp = (torch.empty(rows, dtype=torch.float32, device=logits.device) for _ in range(2))
    if rows and vocabulary:
        types = (("X", logits.dtype), ("L", labels.dtype), ("G", torch.float32))
        group, loss = group_of(vocabulary), [vocabulary, logits.stride(0), 0]
        library("cross_entropy", *types).forward(
            logits, labels, losses, logsumexp, loss, [float(softcap), float(scale)],
            threads=rows * group, group_size=group,
        )  # fmt: skip
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
    """As `patcher.ops.cross_entropy.cross_entropy_backward`."""
    logits, labels = rows_of(logits), labels.contiguous()
    rows, vocabulary = logits.shape
    out = torch.empty((rows, vocabulary), dtype=logits.dtype, device=logits.device)
    if rows and vocabulary:
        types = (("X", logits.dtype), ("L", labels.dtype), ("G", grad_output.dtype))
        loss = [vocabulary, logits.stride(0), grad_output.stride(0)]
        library("cross_entropy", *types).backward(
            grad_output, logits, labels, losses.contiguous(), logsumexp.contiguous(), out, loss,
            [float(softcap), float(scale)], threads=(-(-vocabulary // EACH), rows), group_size=(GROUP, 1),
        )  # fmt: skip
    return out
