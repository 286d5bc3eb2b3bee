"""The two halves of ``unsloth.kernels.cross_entropy_loss.Fast_CrossEntropyLoss`` in plain torch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from patcher.ops.cross_entropy import cross_entropy, cross_entropy_backward


def forward(ctx: Any, logits: Tensor, labels: Tensor, logit_softcapping: float = 0, logit_scaling: float = 0) -> Tensor:
    """Losses of rows ``[rows]`` in fp32 for ``logits`` ``[rows, vocabulary]``; saves the logits, not a copy."""
    labels = labels.to(logits.device)
    losses, logsumexp = cross_entropy(logits, labels, logit_softcapping, logit_scaling)
    ctx.save_for_backward(logits, logsumexp, losses, labels)
    ctx.logit_softcapping = logit_softcapping
    ctx.logit_scaling = logit_scaling
    return losses


def backward(ctx: Any, dlosses: Tensor) -> tuple[Tensor, None, None, None]:
    """The gradient of the logits in their dtype, as a new tensor: the logits may belong to another loss too."""
    logits, logsumexp, losses, labels = ctx.saved_tensors
    dlogits = cross_entropy_backward(
        dlosses, logits, labels, losses, logsumexp, ctx.logit_softcapping, ctx.logit_scaling
    )
    return dlogits, None, None, None
