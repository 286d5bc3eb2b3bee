"""``trl.kernels.logprob_entropy._LogProbEntropyFunction`` in plain torch, and the question whether it is used."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patcher.ops.log_prob_entropy import log_prob_entropy, log_prob_entropy_backward


def forward(
    ctx: Any, logits: Tensor, index: Tensor, temperature: float, row_mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Log-probability of ``index`` and entropy of every row, fp32."""
    found = log_prob_entropy(logits, index, temperature, row_mask)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(logits, index, found.log_z, found.expected_logit, row_mask)
    ctx.temperature = temperature
    return found.log_probs, found.entropy


def backward(
    ctx: Any, grad_logprobs: Tensor | None, grad_entropy: Tensor | None
) -> tuple[Tensor | None, None, None, None]:
    """Gradient of the logits."""
    logits, index, log_z, expected_logit, row_mask = ctx.saved_tensors
    gradient = log_prob_entropy_backward(
        grad_logprobs,
        grad_entropy,
        logits,
        index,
        log_z,
        expected_logit,
        ctx.temperature,
        row_mask,
    )
    return gradient, None, None, None


def _supports_trl_loss_kernel(logits: Tensor, index: Tensor | None = None, row_mask: Tensor | None = None) -> bool:
    """Whether the fp32 computation takes these logits: on mps, one index per row."""
    if logits.device.type != "mps" or not 1 <= logits.ndim <= 3 or logits.shape[-1] == 0:
        return False
    if logits.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return False
    if index is not None and (index.shape != logits.shape[:-1] or index.dtype not in (torch.int32, torch.int64)):
        return False
    return row_mask is None or (index is not None and row_mask.shape == index.shape)
