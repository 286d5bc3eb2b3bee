"""What the variants of attention are tried on: every kind of pattern, heads that are grouped, rows that are packed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from patcher.ops.blocked_attention import Problem, blocked_attention_forward
from patcher.ops.variants.trial import Sample, Tensors, numbers
from patcher.ops.visible_keys import Band, Packed, Pattern, Visible

BATCH, HEADS, KV_HEADS = 2, 4, 2

PACK = ((5, 8), (0, 3), (41, 44), (4, 0), (1, 5))
"""Queries and keys of each row; there are as many more behind the last one as it has."""


@dataclass(frozen=True)
class Case:
    """Attributes:
    pattern: of the scores; each query sees some keys of about equal weight or none, and not one alone, since where one
        has all the weight the gradient of the query is nothing but noise.
    queries, keys: lengths; what is over of a threadgroup's 32 rows, and more than one threadgroup.
    head, value: sizes of a head.
    bias: shape and kind of a bias.
    sinks: whether there are any.
    packed: whether the rows of `PACK` are there in place of a batch.
    """

    pattern: Pattern
    queries: int = 37
    keys: int = 41
    head: int = 32
    value: int = 32
    bias: tuple[tuple[int, ...], torch.dtype] | None = None
    sinks: bool = False
    packed: bool = False


CASES = {
    "everything seen": Case(Pattern(0.1), queries=9, keys=70),
    "causal": Case(Pattern(0.1, causal=True)),
    "a window and a soft cap": Case(Pattern(0.1, window=(7, 2), softcap=2.0)),
    "more queries than keys, and sinks": Case(Pattern(0.1, causal=True), queries=44, keys=36, sinks=True),
    "a mask": Case(Pattern(0.1), bias=((BATCH, 1, 37, 41), torch.bool)),
    "a bias, and sinks": Case(Pattern(0.1, causal=True), bias=((1, HEADS, 37, 41), torch.float32), sinks=True),
    "dropout": Case(Pattern(0.1, dropout_p=0.2, seed=2**63 + 12345)),
    "heads of 64 and 40": Case(Pattern(0.07, causal=True), head=64, value=40),
    "heads of 128": Case(Pattern(0.05, causal=True), head=128, value=128, queries=11, keys=35),
    "heads of 256": Case(Pattern(0.05, causal=True), head=256, value=256, queries=5, keys=19),
    "packed rows, sinks and dropout": Case(Pattern(0.1, causal=True, dropout_p=0.3, seed=7), sinks=True, packed=True),
    "packed rows and a window": Case(Pattern(0.1, causal=True, window=(9, 0)), packed=True),
}

TIMED = (256, 1024, 4096)


def checked(dtype: torch.dtype) -> Iterator[Sample]:
    """Samples with NaN around what may be read."""
    for name, case in CASES.items():
        yield _sample(name, case, dtype, BATCH, HEADS, KV_HEADS)


def timed(dtype: torch.dtype) -> Iterator[Sample]:
    """Causal attention by length."""
    for length in TIMED:
        case = Case(Pattern(64**-0.5, causal=True), queries=length, keys=length, head=64, value=64)
        yield _sample(str(length), case, dtype, 1, 8, 2)


def _sample(name: str, case: Case, dtype: torch.dtype, batch: int, heads: int, kv_heads: int) -> Sample:
    """With what the torch variant gives on the CPU as the forward's results, from which each backward starts."""
    draw = numbers(len(name))
    queries, keys = (
        (sum(part) + part[-1] for part in zip(*PACK, strict=True)) if case.packed else (case.queries, case.keys)
    )
    batch = 1 if case.packed else batch
    shapes = {
        "query": (batch, queries, heads, case.head),
        "key": (batch, keys, kv_heads, case.head),
        "value": (batch, keys, kv_heads, case.value),
        "grad": (batch, queries, heads, case.value),
    }
    tensors = {key: _apart(draw(*shape).to(dtype)).transpose(1, 2) for key, shape in shapes.items()}
    if case.bias is not None:
        shape, kind = case.bias
        tensors["bias"] = draw(*shape) > -1 if kind == torch.bool else draw(*shape).to(kind)
    if case.sinks:
        tensors["sinks"] = draw(heads).to(dtype)
    if case.packed:
        for starts, part in zip(("starts_query", "starts_key"), zip(*PACK, strict=True), strict=True):
            tensors[starts] = torch.tensor([0, *part], device="cpu").cumsum(0).to(torch.int32)
    tensors["out"], tensors["maximum"], tensors["total"] = blocked_attention_forward(_problem(case, tensors))
    return Sample(name, tensors, partial(_run, case), max(queries, keys) * heads // kv_heads, steps=2)


def _run(case: Case, ops: Any, t: Tensors) -> dict[str, Tensor]:
    problem = _problem(case, t)
    out, maximum, total = ops.blocked_attention_forward(problem)
    grads = ops.blocked_attention_backward(problem, t["grad"], t["out"], t["maximum"], t["total"])
    named = zip(("query", "key", "value", "bias", "sinks"), grads, strict=True)
    return {"out": out, "log": maximum + total.log(), **{key: grad for key, grad in named if grad is not None}}


def _problem(case: Case, t: Tensors) -> Problem:
    query, key = t["query"], t["key"]
    visible: Visible = Band(query.shape[2], key.shape[2], *case.pattern.reach)
    if case.packed:
        longest_query, longest_key = map(max, zip(*PACK, strict=True))
        sizes = longest_query, longest_key, query.shape[2], key.shape[2]
        visible = Packed(t["starts_query"], t["starts_key"], *sizes, *case.pattern.reach)
    return Problem(query, key, t["value"], case.pattern, visible, t.get("bias"), t.get("sinks"))


def _apart(x: Tensor) -> Tensor:
    """The same ``[B, L, H, D]`` whose heads lie apart, with NaN between them."""
    whole = torch.full((*x.shape[:3], x.shape[3] + 3), torch.nan, dtype=x.dtype, device="cpu")
    whole[..., : x.shape[3]] = x
    return whole[..., : x.shape[3]]
