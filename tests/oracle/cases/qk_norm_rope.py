"""Head norm and rotary embedding through upstream's entry points."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from unsloth.kernels import qk_norm_rope


def _norms(Wq, Wk, eps):
    return SimpleNamespace(weight=Wq, variance_epsilon=eps), SimpleNamespace(weight=Wk, eps=eps)


def fused(Q, K, Wq, Wk, cos, sin, dQ, dK, eps, indices=None):
    """``Fast_QK_Norm_RoPE``, which upstream's gate offers on CUDA only: outputs and gradients, heads before tokens."""
    Q, K = Q.requires_grad_(), K.requires_grad_()
    positions = torch.empty(1, dtype=torch.int32) if indices is None else indices.reshape(-1).to(torch.int32)
    Q_out, K_out = qk_norm_rope.Fast_QK_Norm_RoPE.apply(
        Q, K, Wq, Wk, cos, sin, positions, eps, eps, indices is not None
    )
    Q_out, K_out = Q_out.transpose(1, 2), K_out.transpose(1, 2)
    torch.autograd.backward((Q_out, K_out), (dQ, dK))
    return {"Q": Q_out.detach(), "K": K_out.detach(), "dQ": Q.grad, "dK": K.grad}


def fast(Q, K, Wq, Wk, cos, sin, dQ, dK, eps, indices=None):
    """``fast_qk_norm_rope``: outputs, gradients, and the name of the autograd node that made Q."""
    Q, K = Q.requires_grad_(), K.requires_grad_()
    Wq, Wk = Wq.detach().requires_grad_(Wq.requires_grad), Wk.detach().requires_grad_(Wk.requires_grad)
    Q_out, K_out = qk_norm_rope.fast_qk_norm_rope(*_norms(Wq, Wk, eps), Q, K, cos, sin, indices)
    names, node = [], Q_out.grad_fn
    while node is not None:
        names.append(type(node).__name__)
        node = node.next_functions[0][0] if node.next_functions else None
    torch.autograd.backward((Q_out, K_out), (dQ, dK))
    return {
        "Q": Q_out.detach(), "K": K_out.detach(), "dQ": Q.grad, "dK": K.grad, "dWq": Wq.grad, "dWk": Wk.grad,
        "nodes": names,
    }  # fmt: skip


def decode(Q, K, Wq, Wk, cos, sin, position_ids, eps):
    """``decode_qk_norm_rope``: its answer, Q and K or None."""
    with torch.no_grad():
        return qk_norm_rope.decode_qk_norm_rope(*_norms(Wq, Wk, eps), Q, K, cos, sin, position_ids)
