"""Reductions and scans: torch's own where two elements are combined by one known operation, in pairs otherwise."""

from __future__ import annotations

from collections.abc import Callable

import torch

from patcher.tiles.on_torch.carriers import wrap
from patcher.tiles.program import Sequence
from patcher.tiles.types import DType, Scalar

Tensor = torch.Tensor
Combine = Callable[[list[Tensor]], list[Tensor]]
"""Elements of the left side, then of the right, each along one axis, to the combined ones."""


def known(combine: Sequence) -> str | None:
    """The elementwise function that a combining block consists of, if it is one."""
    if len(combine.operations) != 1 or combine.operations[0].kind != "map":
        return None
    (operation,) = combine.operations
    whole = operation.operands == combine.parameters and operation.results == combine.results
    return str(operation.attributes["fn"]) if whole else None


def reduce(xs: list[Tensor], scalar: Scalar, axis: int, fn: str | None, combine: Combine) -> list[Tensor]:
    """One element for all along ``axis``, which counts the programs' axis."""
    x = xs[0]
    plain = isinstance(scalar, DType) and scalar.name != "uint64" and not scalar.is_int1() and not scalar.is_fp8()
    if fn == "add" and plain:
        return [wrap(x.sum(axis, dtype=x.dtype), scalar)]
    if fn in ("max", "min") and plain:
        return [_extreme(x, axis, fn)]
    while xs[0].shape[axis] > 1:
        even, odd = ([_every_other(x, axis, start) for x in xs] for start in (0, 1))
        xs = _combined(even, odd, combine)
    return [x.squeeze(axis) for x in xs]


def _extreme(x: Tensor, axis: int, fn: str) -> Tensor:
    """NaN has no say among numbers."""
    reduce = torch.amax if fn == "max" else torch.amin
    if not x.dtype.is_floating_point:
        return reduce(x, axis)
    missing = torch.isnan(x)
    worst = float("-inf") if fn == "max" else float("inf")
    result = reduce(torch.where(missing, torch.full_like(x, worst), x), axis)
    return torch.where(missing.all(axis), torch.full_like(result, float("nan")), result)


def scan(xs: list[Tensor], scalar: Scalar, axis: int, reverse: bool, fn: str | None, combine: Combine) -> list[Tensor]:
    """Running results along ``axis``, which counts the programs' axis."""
    if reverse:
        xs = [torch.flip(x, (axis,)) for x in xs]
    plain = isinstance(scalar, DType) and not scalar.is_int1() and not scalar.is_fp8()
    if fn in ("add", "mul") and plain and (fn == "add" or scalar.primitive_bitwidth < 64):
        run = torch.cumsum if fn == "add" else torch.cumprod
        xs = [wrap(run(xs[0], axis, dtype=xs[0].dtype), scalar)]
    else:
        xs = _doubling(xs, axis, combine)
    return [torch.flip(x, (axis,)) for x in xs] if reverse else xs


def _doubling(xs: list[Tensor], axis: int, combine: Combine) -> list[Tensor]:
    """Combines every element with the one 1, 2, 4 ... before it."""
    extent, distance = xs[0].shape[axis], 1
    while distance < extent:
        left = [x.narrow(axis, 0, extent - distance) for x in xs]
        right = [x.narrow(axis, distance, extent - distance) for x in xs]
        done = [x.narrow(axis, 0, distance) for x in xs]
        xs = [torch.cat(pair, axis) for pair in zip(done, _combined(left, right, combine), strict=True)]
        distance *= 2
    return xs


def _every_other(x: Tensor, axis: int, start: int) -> Tensor:
    index = [slice(None)] * axis + [slice(start, None, 2)]
    return x[tuple(index)]


def _combined(left: list[Tensor], right: list[Tensor], combine: Combine) -> list[Tensor]:
    shape = left[0].shape
    combined = combine([x.reshape(-1) for x in (*left, *right)])
    return [x.expand(shape.numel()).reshape(shape) for x in combined]
