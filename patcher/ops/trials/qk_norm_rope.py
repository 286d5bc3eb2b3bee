"""What the variants of QK-norm with rotary embedding are tried on, as in Qwen3's attention and its decoding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from patcher.ops.variants.trial import Sample, Tensors, numbers

EPS = 1e-6
SHAPES = ((2, 7, 3, 1, 10), (1, 5, 4, 2, 64), (2, 2, 1, 1, 132), (1, 1, 1, 1, 600))
"""Samples, tokens, heads of queries and of keys, size of a head."""


def checked(dtype: torch.dtype) -> Iterator[Sample]:
    """Samples whose heads lie apart."""
    for shape in SHAPES:
        for table_dtype in dict.fromkeys((dtype, torch.float32)):
            name = f"{' x '.join(map(str, shape))} with a table of {table_dtype}"
            yield Sample(name, _tensors(shape, dtype, table_dtype), _all, shape[-1], steps=4)


def timed(dtype: torch.dtype) -> Iterator[Sample]:
    """Samples by the size of a head."""
    for head in (64, 128):
        yield Sample(str(head), _tensors((1, 512, 32, 8, head), dtype, dtype), _once, head)


def _tensors(shape: tuple[int, ...], dtype: torch.dtype, table_dtype: torch.dtype) -> dict[str, Tensor]:
    batch, tokens, q_heads, k_heads, head = shape
    draw = numbers(head)
    made: dict[str, Tensor] = {}
    for name, heads in (("q", q_heads), ("k", k_heads)):
        for of in ("", "_grad"):
            made[name + of] = draw(batch, tokens, heads, head + 3)[..., 1:-2].to(dtype)
        made[f"{name}_weight"] = (draw(head) * 0.3 + 1).to(dtype)
        made[name][0, 0] *= 1e-3  # so that eps counts
    angles = draw(2 * tokens, head // 2) * 3
    for name, table in (("cos", angles.cos()), ("sin", angles.sin())):
        made[name] = torch.cat([table, table], 1).to(table_dtype)
    made["positions"] = torch.arange(batch * tokens, dtype=torch.int32, device="cpu").mul(3) % (2 * tokens)
    return made


def _once(ops: Any, t: Tensors) -> dict[str, Tensor]:
    return _pair(ops, t, None, "")


def _all(ops: Any, t: Tensors) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for places, positions in (("", None), (" at positions", t["positions"])):
        y, rstd = ops.qk_norm_rope(t["k"], t["k_weight"], t["cos"], t["sin"], EPS, positions)
        grad = ops.qk_norm_rope_backward(t["k_grad"], t["k"], t["k_weight"], rstd, t["cos"], t["sin"], positions)
        found |= {f"k alone{places}": y, f"its gradient{places}": grad}
        found |= _pair(ops, t, positions, places)
    return found


def _pair(ops: Any, t: Tensors, positions: Tensor | None, places: str) -> dict[str, Tensor]:
    weights, tables = (t["q_weight"], t["k_weight"]), (t["cos"], t["sin"])
    q, k, q_rstd, k_rstd = ops.qk_norm_rope_pair(t["q"], t["k"], *weights, *tables, EPS, 2 * EPS, positions)
    given = (t["q_grad"], t["k_grad"], t["q"], t["k"], *weights, q_rstd, k_rstd, *tables)
    q_grad, k_grad = ops.qk_norm_rope_pair_backward(*given, positions)
    names = ("q", "k", "rstd of q", "rstd of k", "gradient of q", "gradient of k")
    return {f"{name}{places}": each for name, each in zip(names, (q, k, q_rstd, k_rstd, q_grad, k_grad), strict=True)}
