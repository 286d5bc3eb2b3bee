"""What the variants of LayerNorm are tried on: with a bias and without, rows far from 0, all gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from patcher.ops.trials.rms_norm import SHAPES, TIMED
from patcher.ops.variants.trial import Sample, Tensors, numbers, strided

EPS = 1e-5


def checked(dtype: torch.dtype) -> Iterator[Sample]:
    """Samples whose rows lie apart and are not aligned."""
    for rows, columns in SHAPES:
        for weight_dtype in dict.fromkeys((dtype, torch.float32)):
            tensors = _tensors(rows, columns, dtype, weight_dtype)
            name = f"{rows} x {columns} with a weight of {weight_dtype}"
            apart = {key: strided(each) if each.dim() == 2 else each for key, each in tensors.items()}
            yield Sample(name, apart, _all, max(rows, columns))


def timed(dtype: torch.dtype) -> Iterator[Sample]:
    """Samples by width, as a training with frozen norms has them."""
    for rows, columns in TIMED:
        yield Sample(str(columns), _tensors(rows, columns, dtype, dtype), _frozen, columns)


def _tensors(rows: int, columns: int, dtype: torch.dtype, weight_dtype: torch.dtype) -> dict[str, Tensor]:
    draw = numbers(rows * columns)
    x, grad = draw(rows, columns), draw(rows, columns)
    x[0] += 3
    x[-1] *= 1e-3  # so that eps counts
    weight, bias = ((draw(columns) * 0.3 + 1).to(weight_dtype) for _ in range(2))
    return {"x": x.to(dtype), "grad": grad.to(dtype), "weight": weight, "bias": bias}


def _frozen(ops: Any, t: Tensors) -> dict[str, Tensor]:
    return _once(ops, t, t["bias"], (True, False, False), "")


def _all(ops: Any, t: Tensors) -> dict[str, Tensor]:
    return {
        **_once(ops, t, t["bias"], (True, True, True), ""),
        **_once(ops, t, None, (True, False, True), " without a bias"),
    }


def _once(ops: Any, t: Tensors, bias: Tensor | None, mask: tuple[bool, bool, bool], case: str) -> dict[str, Tensor]:
    y, mean, rstd = ops.layer_norm(t["x"], t["weight"], bias, EPS)
    gradients = ops.layer_norm_backward(t["grad"], t["x"], t["weight"], mean, rstd, mask)
    assert [each is not None for each in gradients] == list(mask)
    names = ("y", "mean", "rstd", "grad_input", "grad_weight", "grad_bias")
    made = zip(names, (y, mean, rstd, *gradients), strict=True)
    return {f"{name}{case}": each for name, each in made if each is not None}
