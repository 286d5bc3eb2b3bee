"""Upstream's two attentions of its own: with soft-capped scores, and for large heads."""

from __future__ import annotations

from types import SimpleNamespace

import torch
import triton
from unsloth.kernels import flex_attention, large_head_attention


def softcapped(Q, K, V, mask, scalar, softcap, dO):
    """Output and the three gradients; the compiled function runs as written, uncompiled."""
    config = SimpleNamespace(
        query_pre_attn_scalar=scalar,
        attn_logit_softcapping=softcap,
        num_attention_heads=Q.shape[1],
        num_key_value_heads=K.shape[1],
    )
    self = SimpleNamespace(config=config, head_dim=Q.shape[-1], num_key_value_groups=Q.shape[1] // K.shape[1])
    flex_attention._SOFTCAP_EAGER["cpu"] = True
    leaves = [t.detach().requires_grad_() for t in (Q, K, V)]
    out = flex_attention.slow_attention_softcapping(*leaves, mask, self, Q.shape[0], K.shape[-2])
    out.backward(dO)
    return [out.detach(), *(t.grad for t in leaves)]


def large_head(q, k, v, lo, hi, dO):
    """Output and the three gradients, with one fixed tile size instead of autotuning."""
    from contextlib import nullcontext

    torch.cuda.device = lambda device: nullcontext()
    for name in ("_lh_fwd", "_lh_bwd_dq", "_lh_bwd_dkdv"):
        kernel = getattr(large_head_attention, name)
        if isinstance(kernel, triton.runtime.Autotuner):
            setattr(large_head_attention, name, _Fixed(kernel.fn))
    leaves = [t.detach().requires_grad_() for t in (q, k, v)]
    out = large_head_attention.large_head_attention(*leaves, lo, hi)
    out.backward(dO)
    return [out.detach(), *(t.grad for t in leaves)]


class _Fixed:
    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        tile = {"BLOCK_M": 16, "BLOCK_N": 16}
        return lambda *args, **kwargs: self.kernel[grid(tile)](*args, **kwargs, **tile)
