"""How far attention in fp32 sums may be from its formula in fp64, element by element.

To first order, with ``eps`` of fp32, ``u`` half an eps of the result's dtype, and ``g(n) = 2 + sqrt(n)`` for a sum of
``n`` terms, whose roundings go either way: they add up to ``sqrt(n) / 2`` eps or so, and exponential, hyperbolic
tangent and division come on top:

| | may be off by |
|---|---|
| a logit ``z_ij`` | ``e_ij = g(D) eps scale |q_i| . |k_j| + 2 eps |z_ij|`` |
| a weight ``p_ij``, relatively | ``w_i = 2 max_j e_ij + g(S) eps`` |
| ``o_i`` | ``w_i sum_j M_ij p_ij |v_j| + u |o_i|`` |
| ``dv_j`` | ``sum_i M_ij p_ij |do_i| (w_i + g(n) eps) + u |dv_j|``, ``n`` queries of all heads that share it |
| ``dz_ij`` | ``d_ij = p_ij (a_ij (2 w_i + g(Dv) eps) + u |do_i| . |o_i|)``, ``a_ij = |do_i| . (M_ij |v_j| + |o|_i)`` |
| ``dq_i`` | ``scale sum_j (d_ij + g(S) eps p_ij a_ij) |k_j| + u |dq_i|``; ``dk_j`` likewise |
| ``dbias`` | the sum of ``d_ij`` + ``g(n) eps p_ij a_ij``, and ``u |dbias|`` |
| ``dsink`` | the sum over queries of ``p_i (|do_i| . |o|_i (w_i + g(Dv) eps + g(n) eps) + u |do_i| . |o_i|)`` |

``|o|_i`` is ``sum_j M_ij p_ij |v_j|``. The term in ``u`` of ``d_ij`` is the output's rounding, from which the backward
starts; for fp32 it is there too. ``2 w_i``: the weight, and the slope of the soft cap, which errs as the logit does.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from patcher.ops.attention import Pattern
from tests.ops.attention import exact_weights, kept

EPS = 2.0**-23


def g(terms: int) -> float:
    return 2 + math.sqrt(terms)


def bounds(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grad: Tensor,
    pattern: Pattern,
    exact: dict[str, Tensor],
    dtype: torch.dtype,
    *,
    bias: Tensor | None = None,
    sinks: Tensor | None = None,
) -> dict[str, Tensor]:
    """What each of ``exact`` (out, query, key, value, bias, sinks) may be off by in ``dtype``; all tensors are fp64."""
    u = torch.finfo(dtype).eps / 2
    groups = query.shape[1] // key.shape[1]
    k, v = (x.repeat_interleave(groups, 1).abs() for x in (key, value))
    q, do, o = query.abs(), grad.abs(), exact["out"].abs()
    p = exact_weights(query, key, pattern, bias=bias, sinks=sinks)
    p, p_sink = p[..., :-1], p[..., -1]
    m = kept(p.shape, pattern)
    logits = q @ k.transpose(-1, -2) * pattern.scale
    e = g(q.shape[-1]) * EPS * logits + 2 * EPS * logits
    if bias is not None and bias.is_floating_point():
        e = e + 2 * EPS * bias.abs().nan_to_num(posinf=0)
    w = 2 * (e * (p > 0)).amax(-1, keepdim=True) + g(k.shape[2]) * EPS
    mp = m * p
    reached = mp @ v
    delta = (do * reached).sum(-1, keepdim=True)
    a = m * (do @ v.transpose(-1, -2)) + delta
    n = groups * q.shape[2]
    d = p * (a * (2 * w + g(v.shape[-1]) * EPS) + u * (do * o).sum(-1, keepdim=True))
    off = {
        "out": w * reached,
        "value": _of_kv((mp * (w + g(n) * EPS)).transpose(-1, -2) @ do, groups),
        "query": pattern.scale * (d + g(k.shape[2]) * EPS * p * a) @ k,
        "key": _of_kv(pattern.scale * (d + g(n) * EPS * p * a).transpose(-1, -2) @ q, groups),
    }
    if "bias" in exact:
        terms = p.numel() // exact["bias"].numel()
        off["bias"] = (d + g(terms) * EPS * p * a).sum_to_size(exact["bias"].shape)
    if "sinks" in exact:
        relative = w + (g(v.shape[-1]) + g(p_sink.numel() // p_sink.shape[1])) * EPS
        off["sinks"] = (p_sink[..., None] * (delta * relative + u * (do * o).sum(-1, keepdim=True))).sum((0, 2, 3))
    tiny = torch.finfo(dtype).smallest_normal * u
    return {name: off[name] + u * exact[name].abs() + tiny for name in exact}


def _of_kv(x: Tensor, groups: int) -> Tensor:
    return x.view(x.shape[0], -1, groups, *x.shape[2:]).sum(2)
