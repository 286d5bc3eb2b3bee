"""Rotary embedding through upstream's entry points."""

from __future__ import annotations

import torch
from unsloth.kernels import rope_embedding


def fast(Q, K, cos, sin, dQ, dK, indices=None):
    """Outputs, gradients, and whether Q's and K's own memory was rotated; Q and K keep their strides."""
    base_Q, base_K = Q.requires_grad_(), K.requires_grad_()
    q, k = base_Q.view_as(base_Q), base_K.view_as(base_K)  # not leaves, as in a model; strides are kept
    before = q.data_ptr(), k.data_ptr()
    Q_out, K_out = rope_embedding.fast_rope_embedding(q, k, cos, sin, indices)
    in_place = [Q_out.data_ptr() == before[0], K_out.data_ptr() == before[1]]
    strides = [Q_out.stride(), K_out.stride()]
    torch.autograd.backward((Q_out, K_out), (dQ, dK))
    return {
        "Q": Q_out.detach(), "K": K_out.detach(), "dQ": base_Q.grad, "dK": base_K.grad,
        "in_place": in_place, "strides": strides, "given": [dQ, dK],
    }  # fmt: skip


def single(Q, cos, sin, dQ):
    """``Fast_RoPE_Embedding.apply`` on ``[batch, tokens, heads, head]``: output, gradient, whether in place."""
    leaf = Q.requires_grad_()
    q = leaf.view_as(leaf)
    before = q.data_ptr()
    Y = rope_embedding.Fast_RoPE_Embedding.apply(q, cos, sin)
    in_place = Y.data_ptr() == before
    Y.backward(dQ)
    return {"Y": Y.detach(), "dQ": leaf.grad, "in_place": in_place}


def slow(Q, K, cos, sin, position_ids, dQ):
    """``inplace_rope_embedding``: outputs and the gradient of Q."""
    leaf = Q.requires_grad_()
    Q_out, K_out = rope_embedding.inplace_rope_embedding(leaf * 1, K, cos, sin, position_ids)
    Q_out.backward(dQ)
    return {"Q": Q_out.detach(), "K": K_out.detach(), "dQ": leaf.grad}


def launch_decode(Q, K, cos, sin, position_ids):
    """What ``decode_rope_inplace`` launches on CUDA: Q and K rotated in place with int32 positions."""
    positions = position_ids.reshape(-1).to(torch.int32)
    rope_embedding._rope_qk(Q, K, Q, K, cos, sin, positions, True, False, rope_embedding._eager_kernel)
    return {"Q": Q, "K": K}


def decode(Q, K, cos, sin, position_ids):
    """``decode_rope_inplace`` itself: Q and K afterwards and the answer."""
    answer = rope_embedding.decode_rope_inplace(Q, K, cos, sin, position_ids)
    return {"Q": Q, "K": K, "answer": answer}
