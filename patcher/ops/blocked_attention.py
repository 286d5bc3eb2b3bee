"""Attention in blocks of queries with all the keys that they see, forward and backward, in torch.

For query head ``h`` of the group of key head ``g``, with what a query sees from `patcher.ops.visible_keys`::

    s_ij = scale * q_i . k_j         z_ij = softcap * tanh(s_ij / softcap) + bias_ij      (or s_ij + bias_ij)
    m_i  = max_j z_ij                e_ij = exp(z_ij - m_i)         l_i = sum_j e_ij + exp(sink_h - m_i)
    o_i  = sum_j M_ij e_ij v_j / l_i,  M_ij = 0 or 1 / (1 - dropout_p)

    dv_j   = sum_i M_ij e_ij do_i / l_i               dz_ij   = e_ij / l_i (M_ij do_i . v_j - do_i . o_i)
    dq_i   = scale sum_j dz_ij slope_ij k_j           dk_j    = scale sum_i dz_ij slope_ij q_i
    dsink  = - sum_i exp(sink - m_i) / l_i do_i . o_i

Everything is computed in fp32, in fp64 for fp64 inputs, and rounded once, to the dtype of the input that it belongs to.
A block is computed again in the backward (as in Dao et al., "FlashAttention", 2022), from ``m`` and ``l``, which keep
the digits that their one number ``m + log l`` has lost where ``m`` is large. A query that sees no key gives zeros and
gets none but zero gradients.

A block holds `ELEMENTS` scores, or more in proportion to the query, so that launches grow with the length, too. Keys
and values of the heads of a block are there in fp32, and their gradients. So memory grows with the length, not with its
square, and no sum of the backward runs over more rows than a block has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from patcher.ops.logit_tiles import spans
from patcher.ops.philox import dropped
from patcher.ops.split_sum import FIRST_WRONG, matmul_split
from patcher.ops.visible_keys import Pattern, Visible

ELEMENTS = 1 << 21
"""Scores of a block (8 MiB in fp32), or a quarter as many as the query has elements; the backward holds two blocks."""

LAUNCHES = 1 << 18
"""To launch the kernels of a block takes about as long as to compute so many scores."""

Gradients = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]
"""Of query, key, value, bias and sinks."""


@dataclass(frozen=True)
class Problem:
    """What attention is computed of.

    Attributes:
        query: ``[B, H, L, D]``.
        key: ``[B, Hkv, S, D]``; ``H`` is a multiple of ``Hkv``.
        value: ``[B, Hkv, S, Dv]``.
        pattern: what happens to the scores.
        visible: what each query sees.
        bias: broadcastable to ``[B, H, L, S]``, of four dimensions: added to the scores, or boolean: True is seen.
        sinks: ``[H]``, logits that take part in the softmax and have no value.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    pattern: Pattern
    visible: Visible
    bias: Tensor | None = None
    sinks: Tensor | None = None

    @property
    def groups(self) -> int:
        return self.query.shape[1] // self.key.shape[1]

    @property
    def wide(self) -> torch.dtype:
        """The dtype of the arithmetic."""
        return torch.promote_types(self.query.dtype, torch.float32)


@dataclass(frozen=True)
class Part:
    """Heads that are computed together: of one batch entry, or all heads of some.

    Attributes:
        batch, kv_heads, heads: what they are of query, key and value.
    """

    batch: slice
    kv_heads: slice
    heads: slice


@dataclass(frozen=True)
class Plan:
    """How the scores are cut.

    Attributes:
        rows: queries of a block.
        batches, kv_heads: entries of the batch and key heads that are computed together; all heads of several entries,
            or some heads of one.
    """

    rows: int
    batches: int
    kv_heads: int

    @staticmethod
    def of(problem: Problem) -> Plan:
        """The plan that takes least time: of which elements and blocks are few."""
        length = problem.query.shape[2]
        plans = [Plan._with(problem, min(1 << power, length)) for power in range(max(1, length).bit_length() + 1)]
        best = plans[0]
        for plan in plans[1:]:  # torch.compile reads no min with a key
            if plan._fits(problem) and plan._cost(problem) < best._cost(problem):
                best = plan
        return best

    @staticmethod
    def _with(problem: Problem, rows: int) -> Plan:
        batch, kv_heads, keys, width = problem.key.shape
        width += problem.value.shape[3]
        of_one = problem.groups * rows * (problem.visible.width(rows) + width) + keys * width
        together = max(1, _elements(problem) // max(1, of_one))
        heads = -(-kv_heads // max(1, -(-kv_heads // together)))  # about as many in each part
        return Plan(rows, max(1, min(batch, together // max(1, kv_heads))), heads)

    def _fits(self, problem: Problem) -> bool:
        rows = problem.groups * self.rows
        return rows < FIRST_WRONG and rows * problem.visible.width(self.rows) <= _elements(problem)

    def _cost(self, problem: Problem) -> float:
        batch, heads, length, _ = problem.query.shape
        parts = -(-batch // self.batches) * -(-problem.key.shape[1] // max(1, self.kv_heads))
        blocks = parts * -(-length // max(1, self.rows))
        return batch * heads * length * problem.visible.mean_width(self.rows) + LAUNCHES * blocks

    def parts(self, problem: Problem) -> Iterator[Part]:
        """All heads."""
        for b, b_end in spans(problem.key.shape[0], self.batches):
            for h, h_end in spans(problem.key.shape[1], self.kv_heads):
                yield Part(slice(b, b_end), slice(h, h_end), slice(h * problem.groups, h_end * problem.groups))

    def blocks(self, problem: Problem) -> Iterator[tuple[slice, slice]]:
        """Queries and the keys that they may see; keys may be none."""
        for start, end in spans(problem.query.shape[2], max(1, self.rows)):
            yield slice(start, end), problem.visible.keys(slice(start, end))


def _elements(problem: Problem) -> int:
    elements = max(ELEMENTS, problem.query.numel() // 4)
    return elements // 4 if problem.pattern.dropout_p else elements  # the mask is made in int64


def _grouped(x: Tensor, part: Part, rows: slice, problem: Problem) -> Tensor:
    """Rows of ``[B, H, L, D]`` in the arithmetic's dtype as ``[b, hkv, groups * rows, D]``."""
    taken = x[part.batch, part.heads, rows].to(problem.wide)
    return taken.reshape(taken.shape[0], -1, problem.groups * taken.shape[2], taken.shape[3])


def _ungrouped(x: Tensor, groups: int) -> Tensor:
    """``[b, hkv, groups * rows, D]`` as ``[b, h, rows, D]``, a view."""
    return x.view(x.shape[0], x.shape[1] * groups, x.shape[2] // groups, x.shape[3])


def _sliced(bias: Tensor, parts: tuple[slice, ...]) -> Tensor:
    """A part of a tensor, along the dimensions that are not broadcast."""
    return bias[tuple(slice(None) if size == 1 else part for size, part in zip(bias.shape, parts, strict=True))]


@dataclass(frozen=True)
class Block:
    """Scores of some queries of a part, and what is taken from them."""

    problem: Problem
    part: Part
    rows: slice
    keys: slice

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """``s`` of scaled queries ``[b, hkv, n, D]`` and of the part's keys ``[b, hkv, S, D]``."""
        return torch.matmul(q, k[:, :, self.keys].transpose(-1, -2))

    def logits_(self, s: Tensor) -> Tensor:
        """``z`` in the memory of ``s``, which has been capped: biases are added, what is hidden is -inf."""
        z = _ungrouped(s, self.problem.groups)
        if (bias := self.problem.bias) is not None:
            bias = _sliced(bias, self.index)
            z.masked_fill_(bias.logical_not(), -torch.inf) if bias.dtype == torch.bool else z.add_(bias)
        for edge in self._edges():
            hidden = self.problem.visible.hidden(self.rows, edge, z.device)
            z[..., edge.start - self.keys.start : edge.stop - self.keys.start].masked_fill_(hidden, -torch.inf)
        return s

    @property
    def index(self) -> tuple[slice, slice, slice, slice]:
        return self.part.batch, self.part.heads, self.rows, self.keys

    def _edges(self) -> Iterator[slice]:
        """Keys that not all of the queries see."""
        common = self.problem.visible.seen_by_all(self.rows)
        if common.start >= common.stop:
            common = slice(self.keys.stop, self.keys.stop)
        for edge in (slice(self.keys.start, common.start), slice(common.stop, self.keys.stop)):
            if edge.start < edge.stop:
                yield edge

    def drop_(self, x: Tensor) -> Tensor:
        """Zero where dropout drops; the others are not scaled."""
        pattern = self.problem.pattern
        if pattern.dropout_p:
            mask = dropped(pattern.dropout_p, pattern.seed, *self.index, x.device)
            _ungrouped(x, self.problem.groups).masked_fill_(mask, 0)
        return x

    def sinks(self) -> Tensor | None:
        """Of every row ``[b or 1, hkv, n, 1]``."""
        if self.problem.sinks is None:
            return None
        sinks = self.problem.sinks[self.part.heads].to(self.problem.wide)
        groups, rows = self.problem.groups, self.rows.stop - self.rows.start
        return sinks.view(1, -1, groups, 1).expand(1, -1, groups, rows).reshape(1, -1, groups * rows, 1)


def kept_weight(pattern: Pattern) -> float:
    """What kept weights are multiplied by."""
    return 1 / (1 - pattern.dropout_p) if pattern.dropout_p < 1 else 0.0


@torch.no_grad()
def blocked_attention_forward(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Output ``[B, H, L, Dv]`` in the query's dtype, stored as ``[B, L, H, Dv]``, and ``m`` and ``l`` ``[B, H, L]``."""
    query, value, softcap = problem.query, problem.value, problem.pattern.softcap
    batch, heads, length, _ = query.shape
    out = query.new_zeros((batch, length, heads, value.shape[3])).transpose(1, 2)
    lowest = torch.finfo(problem.wide).min
    maximum = torch.full((batch, heads, length, 1), lowest, dtype=problem.wide, device=query.device)
    total = torch.ones_like(maximum)
    plan = Plan.of(problem)
    with torch.autocast(query.device.type, enabled=False):
        for part in plan.parts(problem):
            k, v = (x[part.batch, part.kv_heads].to(problem.wide) for x in (problem.key, value))
            for rows, keys in plan.blocks(problem):
                block = Block(problem, part, rows, keys)
                sinks = block.sinks()
                if keys.start == keys.stop:
                    if sinks is not None:
                        maximum[part.batch, part.heads, rows] = _ungrouped(sinks, problem.groups)
                    continue
                s = block.scores(_grouped(query, part, rows, problem) * problem.pattern.scale, k)
                if softcap is not None:
                    s.div_(softcap).tanh_().mul_(softcap)
                z = block.logits_(s)
                m = z.amax(-1, keepdim=True)
                m = m.clamp_(min=lowest) if sinks is None else torch.maximum(m, sinks)
                e = z.sub_(m).exp_()
                l = e.sum(-1, keepdim=True)
                if sinks is not None:
                    l.add_((sinks - m).exp_())
                l.clamp_(min=1)  # the largest term is 1, but where nothing is seen
                o = matmul_split(block.drop_(e), v[:, :, keys]).div_(l)
                if problem.pattern.dropout_p:
                    o.mul_(kept_weight(problem.pattern))
                for into, x in ((out, o), (maximum, m), (total, l)):
                    into[part.batch, part.heads, rows] = _ungrouped(x, problem.groups)
    return out, maximum.squeeze(-1), total.squeeze(-1)


@torch.no_grad()
def blocked_attention_backward(
    problem: Problem, grad_output: Tensor, out: Tensor, maximum: Tensor, total: Tensor, *, bias_needs_grad: bool = False
) -> Gradients:
    """Gradients in the dtypes and strides of the inputs, from what `blocked_attention_forward` gave."""
    grads = _Gradients(problem, bias_needs_grad)
    plan = Plan.of(problem)
    with torch.autocast(problem.query.device.type, enabled=False):
        for part in plan.parts(problem):
            grads.of_part(part, plan, (grad_output, out, maximum[..., None], total[..., None]))
    bias, sinks = (
        None if total is None or x is None else total.to(x.dtype)
        for total, x in ((grads.bias, problem.bias), (grads.sinks, problem.sinks))
    )
    return grads.query, grads.key, grads.value, bias, sinks


class _Gradients:
    """Gradients that are filled part by part."""

    def __init__(self, problem: Problem, bias_needs_grad: bool) -> None:
        self.problem = problem
        self.query = torch.zeros_like(problem.query)
        self.key, self.value = torch.empty_like(problem.key), torch.empty_like(problem.value)
        self.bias = self.sinks = None
        if bias_needs_grad and problem.bias is not None:
            self.bias = torch.zeros_like(problem.bias, dtype=problem.wide)
        if problem.sinks is not None:
            self.sinks = torch.zeros_like(problem.sinks, dtype=problem.wide)

    def of_part(self, part: Part, plan: Plan, given: tuple[Tensor, ...]) -> None:
        """``given`` is the output's gradient, the output, ``m`` and ``l``."""
        p = self.problem
        k, v = (x[part.batch, part.kv_heads].to(p.wide) for x in (p.key, p.value))
        grad_key, grad_value = torch.zeros_like(k), torch.zeros_like(v)
        for rows, keys in plan.blocks(p):
            if keys.start < keys.stop:
                block = Block(p, part, rows, keys)
                self._of_block(block, k, v, grad_key[:, :, keys], grad_value[:, :, keys], given)
        self.key[part.batch, part.kv_heads] = grad_key
        self.value[part.batch, part.kv_heads] = grad_value

    def _of_block(
        self, block: Block, k: Tensor, v: Tensor, grad_key: Tensor, grad_value: Tensor, given: tuple[Tensor, ...]
    ) -> None:
        """Adds to ``grad_key`` and ``grad_value``, of the block's keys; ``k`` and ``v`` are of all keys."""
        p, part, rows, keys = self.problem, block.part, block.rows, block.keys
        do, o, m, l = (_grouped(x, part, rows, p) for x in given)
        do = do / l
        q = _grouped(p.query, part, rows, p) * p.pattern.scale
        e, slope = self._weights(block, q, k, m)
        delta = (do * o).sum(-1, keepdim=True)
        if p.pattern.dropout_p:
            do.mul_(kept_weight(p.pattern))
            grad_value += torch.matmul(block.drop_(e.clone()).transpose(-1, -2), do)
        else:
            grad_value += torch.matmul(e.transpose(-1, -2), do)
        if slope is not None and self.bias is None:  # now, so that no more than two blocks are held
            e.mul_(slope)
            slope = None
        ds = block.drop_(torch.matmul(do, v[:, :, keys].transpose(-1, -2))).sub_(delta).mul_(e)
        if self.bias is not None:
            into = _sliced(self.bias, block.index)
            into += _ungrouped(ds, p.groups).sum_to_size(into.shape)
        if slope is not None:
            ds.mul_(slope)
        dq = matmul_split(ds, k[:, :, keys]).mul_(p.pattern.scale)
        self.query[part.batch, part.heads, rows] = _ungrouped(dq, p.groups)
        grad_key += torch.matmul(ds.transpose(-1, -2), q)
        if self.sinks is not None and (sinks := block.sinks()) is not None:
            self.sinks[part.heads] -= _ungrouped((sinks - m).exp_().mul_(delta), p.groups).sum((0, 2, 3))

    def _weights(self, block: Block, q: Tensor, k: Tensor, m: Tensor) -> tuple[Tensor, Tensor | None]:
        """``e`` of a block, and the slope of the soft cap if there is one."""
        s, slope, softcap = block.scores(q, k), None, self.problem.pattern.softcap
        if softcap is not None:
            s.div_(softcap).tanh_()
            slope = s.square().neg_().add_(1)
            s.mul_(softcap)
        return block.logits_(s).sub_(m).exp_(), slope
