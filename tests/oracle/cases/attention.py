"""Upstream's attention of its own, with soft-capped scores."""

from __future__ import annotations

from types import SimpleNamespace

from unsloth.kernels import flex_attention


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
