"""RMSNorm, which models with code of their own (SDAR) take from here."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import rms_norm


def rms_norm_fn(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, eps: float = 1e-6) -> Tensor:
    """``x / sqrt(mean(x^2) + eps) * weight + bias`` over the last dimension, in fp32, in the dtype of ``x``."""
    normed = rms_norm(x.to(torch.float32), x.shape[-1:], weight.to(torch.float32), eps)
    return (normed if bias is None else normed + bias).to(x.dtype)
