"""Attention as its formula, in fp64 with an ``L x S`` matrix, and inputs for it."""

from __future__ import annotations

import torch
from torch import Tensor

from patcher.ops.attention import Pattern
from patcher.ops.philox import dropped


def tensors(dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(*shape, generator=generator).to(dtype) for shape in shapes]


def causal(queries: int, keys: int, dtype: torch.dtype) -> Tensor:
    """The lowest number where a query must not look; the last query sees every key."""
    hidden = torch.arange(keys) > torch.arange(queries)[:, None] + keys - queries
    return torch.zeros(queries, keys, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)


def seen(queries: int, keys: int, pattern: Pattern) -> Tensor:
    """Boolean ``[queries, keys]`` of the pattern alone."""
    distance = torch.arange(keys) - torch.arange(queries)[:, None] - (keys - queries)
    left, right = pattern.window
    visible = torch.ones(queries, keys, dtype=torch.bool)
    if pattern.causal:
        visible &= distance <= 0
    if left is not None:
        visible &= distance >= -left
    if right is not None:
        visible &= distance <= right
    return visible


def exact_weights(
    query: Tensor,
    key: Tensor,
    pattern: Pattern,
    *,
    bias: Tensor | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """The softmax of plain torch, differentiable, ``[B, H, L, S + 1]``; the last column is the sinks' or zero."""
    key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    s = query @ key.transpose(-1, -2) * pattern.scale
    if pattern.softcap is not None:
        s = pattern.softcap * torch.tanh(s / pattern.softcap)
    visible = seen(query.shape[2], key.shape[2], pattern).expand_as(s)
    if bias is not None:
        s, visible = (s, visible & bias) if bias.dtype == torch.bool else (s + bias, visible)
    s = s.masked_fill(visible.logical_not(), -torch.inf)
    sink = torch.full((s.shape[1],), -torch.inf, dtype=s.dtype) if sinks is None else sinks
    logits = torch.cat([s, sink.view(1, -1, 1, 1).expand(*s.shape[:3], 1)], -1)
    empty = logits.isneginf().all(-1, keepdim=True)
    return logits.masked_fill(empty, 0).softmax(-1).masked_fill(empty, 0)


def kept(shape: torch.Size, pattern: Pattern) -> Tensor:
    """What the weights are multiplied by: 0 or ``1 / (1 - dropout_p)``."""
    if not pattern.dropout_p:
        return torch.ones(shape, dtype=torch.float64)
    batch, heads, rows, keys = (slice(0, size) for size in shape)
    drops = dropped(pattern.dropout_p, pattern.seed, batch, heads, rows, keys, torch.device("cpu"))
    return drops.logical_not().double() / (1 - pattern.dropout_p)


def exact_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: Pattern,
    *,
    bias: Tensor | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """The formula in plain torch, differentiable; a row that sees nothing is zero."""
    weights = exact_weights(query, key, pattern, bias=bias, sinks=sinks)[..., :-1]
    return weights * kept(weights.shape, pattern) @ value.repeat_interleave(query.shape[1] // key.shape[1], 1)


def exact_packed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: list[tuple[int, int]],
    pattern: Pattern,
    *,
    sinks: Tensor | None = None,
) -> Tensor:
    """`exact_attention` row by row; ``rows`` has how many queries and keys each has. What lies behind is zero."""
    at, outputs = [0, 0], []
    for lengths in rows:
        spans = [slice(start, start + length) for start, length in zip(at, lengths, strict=True)]
        at = [span.stop for span in spans]
        q, k, v = (x[span].transpose(0, 1)[None] for x, span in ((query, spans[0]), (key, spans[1]), (value, spans[1])))
        outputs.append(exact_attention(q, k, v, pattern, sinks=sinks)[0].transpose(0, 1))
    rest = query.new_zeros(query.shape[0] - at[0], query.shape[1], value.shape[2])
    return torch.cat([*outputs, rest])
