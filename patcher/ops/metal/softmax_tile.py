"""`patcher.ops.softmax_tile` as Metal shaders: one launch for a tile."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patcher.ops.logit_tiles import LogitTransform
from patcher.ops.metal.library import group_of, library
from patcher.ops.softmax_tile import Gradient, Sums

EACH = 4
"""Elements of a thread; as in the source."""

GROUP = 256


def fold_(
    y: Tensor, places: Tensor, bias: Tensor | None, transform: LogitTransform, sums: Sums, *, weights: bool
) -> Tensor:
    """As `patcher.ops.softmax_tile.fold_`."""
    rows, columns = y.shape
    rescale = torch.ones_like(sums.maximum)
    if rows and columns:
        more = sums.z, sums.z_exp, sums.square
        tile = [columns, bias is not None, weights, *(each is not None for each in more)]
        others = [rescale if each is None else each for each in more]
        group = group_of(columns)
        _library(y, bias).fold(
            y, places, places if bias is None else bias, sums.maximum, sums.total, *others, rescale, tile,
            _how(transform), threads=rows * group, group_size=group,
        )  # fmt: skip
    return rescale


def gradient_(y: Tensor, places: Tensor, bias: Tensor | None, transform: LogitTransform, gradient: Gradient) -> None:
    """As `patcher.ops.softmax_tile.gradient_`."""
    rows, columns = y.shape
    if rows and columns:
        a, b = (gradient.log_z if each is None else each for each in (gradient.a, gradient.b))
        given = [gradient.a is not None, gradient.b is not None]
        _library(y, bias).gradient(
            y, places, places if bias is None else bias, gradient.log_z, gradient.at_label, a, b,
            [columns, bias is not None, 0, 0, 0, 0], _how(transform), float(gradient.c), given,
            threads=(-(-columns // EACH), rows), group_size=(GROUP, 1),
        )  # fmt: skip


def _how(transform: LogitTransform) -> list[float]:
    softcap = transform.softcap or 0.0
    inner = transform.scale / softcap if softcap else 0.0
    return [float(transform.factor), softcap, inner, softcap / transform.temperature]


def _library(y: Tensor, bias: Tensor | None) -> Any:
    return library("softmax_tile", ("X", y.dtype), ("B", torch.int64 if bias is None else bias.dtype))
