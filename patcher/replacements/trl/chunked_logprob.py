"""The two halves of ``trl.kernels.chunked_logprob.ChunkedLogProbFunction`` in plain torch.

They keep and read what upstream's halves do, so that either stands beside an upstream one too. With a frozen head the
forward also keeps the gradient of the hidden states, which its walk over the vocabulary gives with one product more.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patcher.ops.cross_entropy_rows import (
    Rows,
    Terms,
    cross_entropy_rows,
    cross_entropy_rows_backward,
    label_nll,
    spread,
)
from patcher.ops.logit_tiles import Head, LogitTransform

OPTIONAL_OUTPUTS = ("entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
STATISTICS = {"entropy": "entropy", "log_sum_sq_probs": "log_sum_square", "mean_logits": "mean", "is_top1": "is_top1"}


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
    head = Head(hidden, weight, _rounded(bias, ctx.compute_dtype), transform, ctx.compute_dtype)
    wanted, frozen = tuple(STATISTICS[name] for name in outputs), ctx.needs_input_grad[:3] == (True, False, False)
    kept = torch.float32 if hidden.dtype == torch.float16 else hidden.dtype
    found = cross_entropy_rows(head, targets, wanted=wanted, gradient=kept if frozen else None, factor=-1.0)
    ctx.nll, ctx.gradient = found.nll, found.gradient
    # Without entropy no gradient of it can arrive, so log_z only fills its place.
    entropy = found.log_z if found.entropy is None else found.entropy
    ctx.save_for_backward(hidden, weight, bias, targets, found.log_z, entropy)
    without_gradient = (found.log_sum_square, found.mean, found.is_top1)
    ctx.mark_non_differentiable(*(x for x in without_gradient if x is not None))
    return -found.nll, found.entropy, *without_gradient


def backward(ctx: Any, grad_logprobs: Tensor | None, grad_entropy: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    """Gradients of ``hidden``, ``weight`` and ``bias``; tiles of logits are computed again where none was kept."""
    hidden, weight, bias, targets, log_z, entropy = ctx.saved_tensors
    nothing = (None,) * 6
    if grad_entropy is None and grad_logprobs is None:
        return None, None, None, *nothing
    gradient = getattr(ctx, "gradient", None)
    if gradient is not None and grad_entropy is None and grad_logprobs is not None:
        return spread(gradient, grad_logprobs, None, hidden), None, None, *nothing
    kept = ctx.kernel_args
    transform = LogitTransform(kept["logit_scale"], kept["softcap"] if kept["HAS_SOFTCAP"] else None, 1 / kept["inv_t"])
    head = Head(hidden, weight, _rounded(bias, ctx.compute_dtype), transform, ctx.compute_dtype)
    nll = ctx.nll if hasattr(ctx, "nll") else label_nll(head, targets, log_z)
    of_losses = torch.zeros_like(log_z) if grad_logprobs is None else -grad_logprobs.to(torch.float32)
    gradients = cross_entropy_rows_backward(
        of_losses,
        head,
        targets,
        None,
        Rows(nll, nll, log_z, entropy),
        Terms(),
        ctx.needs_input_grad[:3],
        grad_entropy=grad_entropy,
    )
    return *gradients, *nothing


def _rounded(bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """In its own dtype, as autocast takes it."""
    return None if bias is None else bias.to(dtype).to(bias.dtype)
