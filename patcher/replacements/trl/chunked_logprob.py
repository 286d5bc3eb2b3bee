"""The two halves of ``trl.kernels.chunked_logprob.ChunkedLogProbFunction`` in plain torch.

They keep and read what upstream's halves do, so that either stands beside an upstream one too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patcher.ops.chunked_log_prob import OPTIONAL_OUTPUTS, chunked_log_prob, chunked_log_prob_backward
from patcher.ops.logit_tiles import Head, LogitTransform


def compute_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype that a linear layer would compute in here: autocast's where it is on, else the input's."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def forward(
    ctx: Any,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    temperature: float,
    chunk_size: int,
    final_logit_softcapping: float | None = None,
    logit_scale: float = 1.0,
    outputs: tuple[str, ...] = OPTIONAL_OUTPUTS,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Log-probabilities of ``targets`` and the requested extras; only the first two carry gradients."""
    ctx.set_materialize_grads(False)
    transform = LogitTransform(logit_scale, final_logit_softcapping, temperature)
    ctx.kernel_args = {
        "logit_scale": logit_scale,
        "softcap": final_logit_softcapping or 1.0,
        "inv_t": 1 / temperature,
        "HAS_SOFTCAP": final_logit_softcapping is not None,
    }
    ctx.compute_dtype = compute_dtype(hidden)
    ctx.chunk_size = chunk_size
    head = Head(hidden, weight, bias, transform, ctx.compute_dtype)
    found = chunked_log_prob(head, targets, outputs, chunk_size)
    # Without entropy no gradient of it can arrive, so log_z only fills its place.
    entropy = found.log_z if found.entropy is None else found.entropy
    ctx.save_for_backward(hidden, weight, bias, targets, found.log_z, entropy)
    without_gradient = (found.log_sum_sq_probs, found.mean_logits, found.is_top1)
    ctx.mark_non_differentiable(*(x for x in without_gradient if x is not None))
    return found.log_probs, found.entropy, *without_gradient


def backward(ctx: Any, grad_logprobs: Tensor | None, grad_entropy: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    """Gradients of ``hidden``, ``weight`` and ``bias``; every tile of logits is computed again."""
    hidden, weight, bias, targets, log_z, entropy = ctx.saved_tensors
    kept = ctx.kernel_args
    transform = LogitTransform(kept["logit_scale"], kept["softcap"] if kept["HAS_SOFTCAP"] else None, 1 / kept["inv_t"])
    head, output_mask = Head(hidden, weight, bias, transform, ctx.compute_dtype), ctx.needs_input_grad[:3]
    gradients = chunked_log_prob_backward(
        grad_logprobs, grad_entropy, head, targets, log_z, entropy, output_mask, ctx.chunk_size
    )
    return *gradients, None, None, None, None, None, None
