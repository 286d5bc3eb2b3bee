"""What the variants of rotary embedding are tried on: any strides, in place, positions, tables of other types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from patcher.ops.variants.trial import Sample, Tensors, copied, numbers, whole

SHAPES = ((2, 3, 1, 7, 10), (1, 4, 2, 5, 64), (2, 1, 1, 3, 130))
"""Samples, heads of queries and of keys, tokens, size of a head."""


def checked(dtype: torch.dtype) -> Iterator[Sample]:
    """Samples whose heads lie as Unsloth's views of a product do: ``[batch, tokens, heads, head]``, transposed."""
    for shape in SHAPES:
        for table_dtype in dict.fromkeys((dtype, torch.float32)):
            name = f"{' x '.join(map(str, shape))} with a table of {table_dtype}"
            yield Sample(name, _tensors(shape, dtype, table_dtype), _all, 2, steps=2)


def timed(dtype: torch.dtype) -> Iterator[Sample]:
    """Samples by the size of a head."""
    for head in (64, 128):
        yield Sample(str(head), _tensors((1, 32, 8, 512, head), dtype, dtype), _both, 2)


def _tensors(shape: tuple[int, ...], dtype: torch.dtype, table_dtype: torch.dtype) -> dict[str, Tensor]:
    batch, q_heads, k_heads, tokens, head = shape
    draw = numbers(head)
    q, k = (draw(batch, tokens, heads, head + 3)[..., 1:-2].to(dtype) for heads in (q_heads, k_heads))
    angles = draw(2 * tokens, head // 2) * 3
    tables = {name: torch.cat([each, each, each[:, :1]], 1).to(table_dtype)[:, :-1] for name, each in
              (("cos", angles.cos()), ("sin", angles.sin()))}  # fmt: skip
    positions = torch.arange(batch * tokens, dtype=torch.int32, device="cpu").mul(3) % (2 * tokens)
    return {"q": q.transpose(1, 2), "k": k.transpose(1, 2), **tables, "positions": positions}


def _both(ops: Any, t: Tensors) -> dict[str, Tensor]:
    made = {"q": torch.empty_like(t["q"]), "k": torch.empty_like(t["k"])}
    ops.rope_pair_(t["q"], t["k"], t["cos"], t["sin"], q_out=made["q"], k_out=made["k"])
    return made


def _all(ops: Any, t: Tensors) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for transpose in (False, True):
        for in_table_dtype in (False, True):
            for places, positions in (("", None), (" at positions", t["positions"])):
                case = f"{'back' if transpose else 'forth'}{places}{', in the table dtype' if in_table_dtype else ''}"
                how = {"positions": positions, "transpose": transpose, "in_table_dtype": in_table_dtype}
                q, k = copied(t["q"]), copied(t["k"])
                alone = torch.empty(q.shape, dtype=q.dtype, device=q.device)
                ops.rope_(q, t["cos"], t["sin"], out=alone, **how)
                ops.rope_pair_(q, k, t["cos"], t["sin"], q_out=q, k_out=k, **how)
                found |= {f"q alone, {case}": alone, f"q {case}": whole(q), f"k {case}": whole(k)}
    return found
