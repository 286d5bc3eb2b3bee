"""What the variants of a softmax's tile are tried on: two tiles after each other, with every sum and gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from patcher.ops.logit_tiles import LogitTransform
from patcher.ops.softmax_tile import Gradient, Sums
from patcher.ops.variants.trial import Sample, Tensors, numbers

SHAPES = ((1, 1), (3, 5), (5, 33), (4, 300), (37, 128), (2, 4099), (2, 9001))
"""Rows and columns: one element, far less than a simdgroup, many, and wider than a threadgroup holds."""

TIMED = ((1024, 4096), (256, 16384))
TRANSFORMS = {
    "": LogitTransform(),
    "scaled ": LogitTransform(-0.5, None, 0.7),
    "capped ": LogitTransform(0.5, 3.0, 1.5),
}


def checked(dtype: torch.dtype) -> Iterator[Sample]:
    """Labels in the tile and in others, and a bias of the tile's type and of fp32."""
    for rows, columns in SHAPES:
        for bias_dtype in dict.fromkeys((dtype, torch.float32)):
            name = f"{rows} x {columns} with a bias of {bias_dtype}"
            yield Sample(name, _tensors(rows, columns, dtype, bias_dtype), _all, columns, steps=1)


def timed(dtype: torch.dtype) -> Iterator[Sample]:
    """Samples by width, as a frozen head has them."""
    for rows, columns in TIMED:
        yield Sample(str(columns), _tensors(rows, columns, dtype, dtype), _weights, columns)


def _tensors(rows: int, columns: int, dtype: torch.dtype, bias_dtype: torch.dtype) -> dict[str, Tensor]:
    draw = numbers(rows * columns)
    tiles = {f"tile {number}": (draw(rows, columns) * 3).to(dtype) for number in range(2)}
    column = torch.arange(rows, device="cpu") * 7 % (2 * columns)  # of the second half, in the second tile
    place = torch.arange(rows, device="cpu") * columns + column
    labels = {
        f"labels {number}": torch.where(column // columns == number, place - number * columns, rows * columns)
        for number in range(2)
    }
    factors = {name: draw(rows) for name in ("log_z", "at_label", "a", "b")}
    return {**tiles, **labels, **factors, "bias": draw(columns).to(bias_dtype)}


def _tile(tile: Tensor) -> Tensor:
    """A copy in memory with one element more."""
    memory = torch.zeros(tile.numel() + 1, dtype=tile.dtype, device=tile.device)
    return memory[:-1].view_as(tile).copy_(tile)


def _sums(t: Tensors, *wanted: str) -> Sums:
    return Sums.of_nothing(len(t["log_z"]), t["log_z"].device, wanted)


def _weights(ops: Any, t: Tensors) -> dict[str, Tensor]:
    sums, y = _sums(t), _tile(t["tile 0"])
    ops.fold_(y, t["labels 0"], None, TRANSFORMS[""], sums, weights=True)
    return {"y": y, "total": sums.total}


def _all(ops: Any, t: Tensors) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, transform in TRANSFORMS.items():
        for bias in (None, t["bias"]):
            case = f"{name}{'biased ' if bias is not None else ''}"
            sums = _sums(t, *(("z", "z_exp", "square") if bias is not None else ()))
            for number in range(2):
                y = _tile(t[f"tile {number}"])
                found[f"{case}rescale {number}"] = ops.fold_(
                    y, t[f"labels {number}"], bias, transform, sums, weights=True
                )
                found[f"{case}weights {number}"] = y
            found |= {f"{case}{key}": value for key, value in vars(sums).items() if value is not None}
            found |= {f"{case}{key}": value for key, value in _gradients(ops, t, bias, transform).items()}
    return found


def _gradients(ops: Any, t: Tensors, bias: Tensor | None, transform: LogitTransform) -> dict[str, Tensor]:
    found = {}
    log_z = t["log_z"] + 6  # so that no exponential is far above 1
    for number, (a, b, c) in enumerate(((None, None, 0.0), (t["a"], None, 0.01), (t["a"], t["b"], 0.0))):
        y = _tile(t["tile 1"])
        ops.gradient_(y, t["labels 1"], bias, transform, Gradient(log_z, t["at_label"], a, b, c))
        found[f"gradient {number}"] = y
    return found
