"""Attention as Metal shaders: one launch forward, two backward.

The functions give what those of `patcher.ops.blocked_attention` give, up to rounding. A library is compiled for each
kind of launch when it is first needed: dtypes, sizes of a head, and which of soft cap, dropout, packed rows, bias and
sinks there are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patcher.ops.blocked_attention import Gradients, Problem, kept_weight
from patcher.ops.metal.library import TYPES, library
from patcher.ops.philox import WORD, threshold
from patcher.ops.visible_keys import Packed

LARGEST_HEAD = 256

ROWS = 32
"""Rows of a threadgroup, which has four threads for each; as in the source."""

TILE_BYTES = 16384
"""Of threadgroup memory that both tiles may take, unless eight rows take more: half of what a threadgroup may have."""


def supports(problem: Problem, *, bias_needs_grad: bool = False) -> bool:
    """Whether the shaders can compute it: one dtype of 16 or 32 bits, heads of a multiple of 8 up to 256."""
    tensors = (problem.query, problem.key, problem.value)
    sizes = (problem.query.shape[3], problem.value.shape[3])
    return (
        not bias_needs_grad
        and len({x.dtype for x in tensors}) == 1
        and problem.query.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and all(8 <= size <= LARGEST_HEAD and size % 8 == 0 for size in sizes)
        and all(x is None or x.dtype in TYPES for x in (problem.bias, problem.sinks))
    )


def _library(problem: Problem) -> Any:
    types = [("T", problem.query.dtype)]
    types += [(name, x.dtype) for name, x in (("BIAS", problem.bias), ("SINK", problem.sinks)) if x is not None]
    head, value = problem.query.shape[3], problem.value.shape[3]
    row = (head + value) * problem.query.element_size()
    given = (
        ("D", head),
        ("DV", value),
        ("TILE", next((rows for rows in (32, 16) if rows * row <= TILE_BYTES), 8)),
        ("SOFTCAP", int(problem.pattern.softcap is not None)),
        ("DROPOUT", int(problem.pattern.dropout_p > 0)),
        ("PACKED", int(isinstance(problem.visible, Packed))),
        ("BIASED", int(problem.bias is not None)),
        ("SINKING", int(problem.sinks is not None)),
    )
    return library("attention", *types, given=given)


def blocked_attention_forward(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """As `patcher.ops.blocked_attention.blocked_attention_forward`."""
    query, key, value = (_dense(x) for x in (problem.query, problem.key, problem.value))
    batch, heads, length, _ = query.shape
    out = query.new_empty((batch, length, heads, value.shape[3])).transpose(1, 2)
    maximum, total = (query.new_empty((batch, heads, length), dtype=torch.float32) for _ in range(2))
    launch = _Launch(problem, query, key, value, out)
    sinks = () if problem.sinks is None else (problem.sinks,)
    buffers = (query, key, value, out, maximum, total)
    launch("attention_forward", buffers, heads, _longest(problem)[0], sinks)
    return out, maximum, total


def blocked_attention_backward(
    problem: Problem, grad_output: Tensor, out: Tensor, maximum: Tensor, total: Tensor, *, bias_needs_grad: bool = False
) -> Gradients:
    """As `patcher.ops.blocked_attention.blocked_attention_backward`; a bias gets no gradient."""
    query, key, value, grad_output = (_dense(x) for x in (problem.query, problem.key, problem.value, grad_output))
    grads = [torch.empty_like(x) for x in (query, key, value)]
    delta = torch.empty_like(maximum)
    longest_query, longest_key = _longest(problem)
    launch = _Launch(problem, query, key, value, out, grad_output, *grads)
    stats = (maximum, total, delta)
    launch("attention_dq", (query, key, value, out, grad_output, *stats, grads[0]), query.shape[1], longest_query)
    launch("attention_dkv", (query, key, value, grad_output, *stats, *grads[1:]), key.shape[1], longest_key)
    return grads[0], grads[1], grads[2], None, _grad_sinks(problem, maximum, total, delta)


class _Launch:
    """The numbers that the kernels of one problem share."""

    def __init__(self, problem: Problem, *tensors: Tensor) -> None:
        """``tensors``: query, key, value, output, its gradient, the gradients of the first three, as far as known."""
        query, key = tensors[:2]
        pattern, visible = problem.pattern, problem.visible
        self.problem = problem
        self.extra = () if problem.bias is None else (problem.bias,)
        self.starts: tuple[Tensor, ...] = ()
        rows = query.shape[0]
        if isinstance(visible, Packed):
            self.starts = tuple(x.to(torch.int32) for x in (visible.starts_query, visible.starts_key))
            rows = visible.starts_query.numel() - 1
        everything = query.shape[2] + key.shape[2]
        left, right = (everything if side is None else min(side, everything) for side in pattern.reach)
        self.sizes = [query.shape[1], problem.groups, query.shape[2], key.shape[2], rows, left, right]
        for i in range(8):
            self.sizes += tensors[i].stride()[:3] if i < len(tensors) else (0, 0, 0)
        self.sizes += (0, 0, 0, 0) if problem.bias is None else _strides(problem.bias)
        self.sizes += [pattern.seed & WORD, pattern.seed >> 32 & WORD, threshold(pattern.dropout_p)]
        self.numbers = [float(pattern.scale), float(pattern.softcap or 1.0), kept_weight(pattern)]
        self.entries = rows + 1 if self.starts else rows

    def __call__(
        self, name: str, buffers: tuple[Tensor, ...], heads: int, longest: int, sinks: tuple[Tensor, ...] = ()
    ) -> None:
        """A threadgroup for each `ROWS` of ``longest`` positions, each head and each entry of the batch or row.

        Nothing is launched for an empty batch, which Metal has no grid for.
        """
        grid = (4 * ROWS * max(1, -(-longest // ROWS)), heads, self.entries)
        if 0 in grid:
            return
        kernel = getattr(_library(self.problem), name)
        given = (*buffers, self.sizes, self.numbers, *self.extra, *sinks, *self.starts)
        kernel(*given, threads=grid, group_size=(4 * ROWS, 1, 1))


def _dense(x: Tensor) -> Tensor:
    """A tensor whose last dimension is dense, as the kernels take it."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _strides(bias: Tensor) -> tuple[int, ...]:
    """Strides with which a bias is read at the indices of the scores."""
    return tuple(0 if size == 1 else stride for size, stride in zip(bias.shape, bias.stride(), strict=True))


def _longest(problem: Problem) -> tuple[int, int]:
    visible = problem.visible
    if isinstance(visible, Packed):
        return visible.longest_query, visible.longest_key
    return problem.query.shape[2], problem.key.shape[2]


def _grad_sinks(problem: Problem, maximum: Tensor, total: Tensor, delta: Tensor) -> Tensor | None:
    if problem.sinks is None:
        return None
    weight = (problem.sinks.to(torch.float32)[:, None] - maximum).exp_().div_(total)
    return weight.mul_(delta).sum((0, 2)).neg_().to(problem.sinks.dtype)
