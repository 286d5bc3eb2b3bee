"""The two halves of ``unsloth.kernels.cross_entropy_loss.Fast_CrossEntropyLoss`` in plain torch.

They keep and read what upstream's halves do, so that either stands beside an upstream one too.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from patcher.ops.cross_entropy import cross_entropy, cross_entropy_backward


def forward(ctx: Any, logits: Tensor, labels: Tensor, logit_softcapping: float = 0, logit_scaling: float = 0) -> Tensor:
    """Losses of rows ``[rows]`` in fp32 for ``logits`` ``[rows, vocabulary]``; saves the logits, not a copy."""
    logits, labels = logits.contiguous(), labels.to(logits.device).contiguous()
    losses, logsumexp = cross_entropy(logits, labels, logit_softcapping, logit_scaling)
    ctx.save_for_backward(logits, logsumexp, losses, labels)
    ctx.DO_SOFTCAPPING, ctx.logit_softcapping = logit_softcapping != 0, logit_softcapping
    ctx.DO_LOGIT_SCALING, ctx.logit_scaling = logit_scaling != 0, logit_scaling
    return losses


def backward(ctx: Any, dlosses: Tensor) -> tuple[Tensor, None, None, None]:
    """The gradient of the logits in their dtype, as a new tensor: the logits may belong to another loss too."""
    logits, logsumexp, losses, labels = ctx.saved_tensors
    dlogits = cross_entropy_backward(
        dlosses, logits, labels, losses, logsumexp, ctx.logit_softcapping, ctx.logit_scaling
    )
    return dlogits, None, None, None
