"""Attention by its formula, with the whole matrix of scores: what a second derivative is taken of.

The formulas are in `patcher.ops.blocked_attention`. Everything is computed in fp32, in fp64 for fp64 inputs, by
operators that torch differentiates as often as it is asked to.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from patcher.ops.blocked_attention import Gradients, Problem, kept_weight
from patcher.ops.philox import dropped


def dense_attention(problem: Problem) -> Tensor:
    """Output ``[B, H, L, Dv]`` in the query's dtype; a query that sees no key gives zeros."""
    pattern = problem.pattern
    q, k, v = (x.to(problem.wide) for x in (problem.query, problem.key, problem.value))
    k, v = (x.repeat_interleave(problem.groups, 1) for x in (k, v))
    z = q @ k.mT * pattern.scale
    if pattern.softcap is not None:
        z = pattern.softcap * torch.tanh(z / pattern.softcap)
    z = _biased(z, problem)
    seen = (z > -math.inf).any(-1, keepdim=True)
    weights = _softmax(z.masked_fill(~seen, 0), problem.sinks) * seen
    if pattern.dropout_p:
        parts = [slice(0, size) for size in z.shape]
        mask = dropped(pattern.dropout_p, pattern.seed, parts[0], parts[1], parts[2], parts[3], z.device)
        weights = weights.masked_fill(mask, 0) * kept_weight(pattern)
    return (weights @ v).to(problem.query.dtype)


def _biased(z: Tensor, problem: Problem) -> Tensor:
    """Scores with the bias, minus infinity where a key is not seen."""
    hidden = problem.visible.hidden(slice(0, z.shape[2]), slice(0, z.shape[3]), z.device)
    bias = problem.bias
    if bias is None:
        return z.masked_fill(hidden, -math.inf)
    if bias.dtype is torch.bool:
        return z.masked_fill(hidden | ~bias, -math.inf)
    return (z + bias).masked_fill(hidden, -math.inf)


def _softmax(z: Tensor, sinks: Tensor | None) -> Tensor:
    if sinks is None:
        return z.softmax(-1)
    joined = torch.cat([z, sinks.to(z.dtype)[:, None, None].expand(*z.shape[:-1], 1)], -1)
    return joined.softmax(-1)[..., :-1]


def dense_attention_gradients(problem: Problem, grad_output: Tensor, wanted: tuple[bool, ...]) -> Gradients:
    """Differentiable gradients of query, key, value, bias and sinks, those that are wanted."""
    inputs = (problem.query, problem.key, problem.value, problem.bias, problem.sinks)
    with torch.enable_grad(), torch.autocast(problem.query.device.type, enabled=False):
        out = dense_attention(problem)
        asked = [x for x, needed in zip(inputs, wanted, strict=True) if needed and x is not None]
        found = iter(torch.autograd.grad(out, asked, grad_output, create_graph=True))
    return tuple(next(found) if needed else None for needed in wanted)  # type: ignore[return-value]
