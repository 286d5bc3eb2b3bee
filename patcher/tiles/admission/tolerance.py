"""How far what a shader writes may be from what torch operators write.

One number may be two steps of its type off, and beyond that `FACTOR` times what another rounding of the program makes
of it or of half of its neighbours. All numbers together may be off by `MEAN` times what another rounding makes of them,
so that being a little wrong everywhere is wrong. Where a rounding decides between two numbers that lie apart, in whole
numbers as in others, a shader may have the other one, as far away and as often as it happens with `WIDELY` as much of
it. Everything else is equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch

from patcher.tiles.admission.copies import Copy, bits, parts

Tensor: TypeAlias = torch.Tensor

FACTOR = 16
"""How many times as far as two other roundings take a number it may be off: they tell how far that is to within this,
for all but one of a thousand numbers that stand alone."""

MEAN = 8
"""How many times as far as other roundings take all numbers together they may be off: sums of positive numbers that are
added one after the other are off by four times what a rounding at random makes of them."""

FEW = 8
"""So many numbers may be off by two steps, and twice as many by one, whatever the others are: by chance."""

WIDELY = 16
"""How many times as much rounding there is where it is seen which numbers it decides between."""

NEIGHBOURS = 256
"""Numbers in a row, of which half are off by no more than the spread that is taken for them."""


class Roundings:
    """What a launch writes with another rounding; asked only where it matters.

    Args:
        run: gives it for a seed and for how many times the usual rounding.
    """

    def __init__(self, run: Callable[[int, float], Copy]) -> None:
        self.run = run

    @cached_property
    def usual(self) -> list[Copy]:
        """With as much rounding as there is, twice."""
        return [self.run(seed, 1.0) for seed in (1, 2)]

    @cached_property
    def wide(self) -> Copy:
        """With `WIDELY` as much."""
        return self.run(3, WIDELY)


@dataclass(frozen=True)
class Part:
    """Some of the numbers that a launch writes.

    Attributes:
        right: from torch operators.
        before: from before the launch.
        place: which of the tensors they are of.
        slice: where they are in it.
        roundings: where to find them with another rounding.
    """

    right: Tensor
    before: Tensor
    place: int
    slice: slice
    roundings: Roundings

    @property
    def usual(self) -> list[Tensor]:
        """With as much rounding as there is."""
        return [copy.written[self.place][self.slice] for copy in self.roundings.usual]

    @property
    def wide(self) -> Tensor:
        """With much more."""
        return self.roundings.wide.written[self.place][self.slice]


def difference(found: Copy, right: Copy, roundings: Roundings) -> str:
    """What two copies differ in beyond rounding; empty where in nothing."""
    for place, (x, y) in enumerate(zip(found.written, right.written, strict=True)):
        told = _real if x.dtype.is_floating_point else _whole
        for each in parts(x.numel()):
            if wrong := told(x[each], Part(y[each], right.before[place][each], place, each, roundings)):
                return wrong
    return ""


def _whole(x: Tensor, part: Part) -> str:
    """What is wrong with whole numbers."""
    off = _others(x, part.right)
    count = int((off > 0).sum())
    if not count:
        return ""
    chosen = _others(part.wide, part.right)
    if count <= int((chosen > 0).sum()) and bool(off.max() <= chosen.max()):
        return ""
    return f"{count} of {x.numel()} numbers of {x.dtype} are others"


def _others(x: Tensor, y: Tensor) -> Tensor:
    """Distances between whole numbers, in fp32: 0 only between equal ones."""
    if x.dtype == torch.bool:
        return (x != y).float()
    distance = bits(x).float() - bits(y).float()
    return torch.where(bits(x) == bits(y), torch.zeros_like(distance), distance.abs().clamp(min=1))


def _real(x: Tensor, part: Part) -> str:
    """What is wrong with floating-point numbers."""
    y = part.right
    apart, steps = _apart(x, y), _steps(y)
    counted = (apart - _least(y.dtype)).clamp(min=0)
    changed = int((bits(y) != bits(part.before)).sum())
    # in a type of 32 bits another order of a sum is a step, and in a narrow one it is a step of few numbers
    chance = FEW + (changed / 2 if y.dtype.itemsize > 2 else 0.0)
    if bool((apart <= steps).all()) and float((counted / steps).sum()) <= chance:
        return ""
    shaken = part.usual
    far = torch.stack([_apart(other, y).nan_to_num(0.0, posinf=0.0) for other in shaken])
    touched = ~torch.stack([other == y for other in (part.before, *shaken)]).all(0)
    most = far.amax(0)
    spread = torch.where(touched, torch.maximum(most, _among_neighbours(most, steps)), 0.0)
    if y.dtype.itemsize <= 2:  # the step that a number makes or does not is no measure of how far it was taken
        spread = (spread - steps / 2).clamp(min=0)
    off = ~(apart <= steps + FACTOR * spread)
    if count := int(off.sum()):
        chosen = ~(_apart(part.wide, y) <= steps + WIDELY * FACTOR * spread)
        if count > int(chosen.sum()) or bool(apart[off].max() > _apart(part.wide, y)[chosen].max()):
            worst = float((apart / (steps + FACTOR * spread))[off].max())
            return f"{count} of {x.numel()} numbers of {x.dtype} are off, by {worst:.3g} times what may be"
    together = float((counted / (steps + spread))[~off].sum())
    may_be = chance + MEAN * float((far / (steps + spread)).clamp(max=FACTOR).sum(1).mean())
    if together > may_be:
        return f"{x.numel()} numbers of {x.dtype} are off together, by {together / may_be:.3g} times what may be"
    return ""


def _apart(x: Tensor, y: Tensor) -> Tensor:
    """Distances in fp32: 0 between equal ones and between NaN, infinite where only one is NaN or infinite."""
    same = (x == y) | (torch.isnan(x) & torch.isnan(y))
    distance = (x.float() - y.float()).abs().nan_to_num(float("inf"), posinf=float("inf"))
    return torch.where(same, torch.zeros_like(distance), distance)


def _steps(y: Tensor) -> Tensor:
    """Two steps of the type at each number, and `_least`."""
    return 2 * torch.finfo(y.dtype).eps * y.float().abs().nan_to_num(0.0, posinf=0.0) + _least(y.dtype)


def _least(dtype: torch.dtype) -> float:
    """What counts for nothing: all of the least numbers, which some GPUs take for 0; in fp16 two steps of them."""
    about = torch.finfo(dtype)
    return about.tiny if about.tiny < 1e-30 else 2 * about.eps * about.tiny


def _among_neighbours(far: Tensor, steps: Tensor) -> Tensor:
    """What half of the neighbours of each number are off by at most, of those that are off at all.

    Where numbers cancel, neighbours are off by as much; where they are of several sizes, by as many of their steps.
    """
    return torch.maximum(_middle(far), _middle(far / steps) * steps)


def _middle(far: Tensor) -> Tensor:
    """The median of those in each row of neighbours that are not 0, for each number of the row."""
    rows = torch.nn.functional.pad(far, (0, -len(far) % NEIGHBOURS)).view(-1, NEIGHBOURS).sort(1)[0]
    zeros = (rows == 0).sum(1, keepdim=True)
    middle = rows.gather(1, ((zeros + NEIGHBOURS - 1) // 2).clamp(max=NEIGHBOURS - 1))
    return torch.where(zeros < NEIGHBOURS, middle, torch.zeros_like(middle)).repeat_interleave(NEIGHBOURS)[: len(far)]
