"""Programs with another rounding: how far their results may be from those of an exact machine, by trying it.

Each result that is rounded is moved by up to one step of its type at random, those of functions that are known to a
few steps by that many, and what is added up before it is, by as many as there are roundings on its way. Conversions
are not: of one number all back ends make the same one. What a program gives then differs from what it gives otherwise
by what the rounding of another back end does to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Items
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from patcher.tiles.on_torch import reductions
from patcher.tiles.on_torch.executor import Portion, run
from patcher.tiles.program import Operation, Program
from patcher.tiles.types import DType

Tensor = torch.Tensor

EXACT = frozenset(
    (
        *("neg", "abs", "not", "floor", "ceil", "trunc", "rint", "round", "isnan", "isinf", "isfinite", "signbit"),
        *("copysign", "min", "max", "minnan", "maxnan", "and", "or", "xor", "shl", "shr", "rem", "where"),
        *("lt", "le", "gt", "ge", "eq", "ne"),
    )
)
"""Functions that round nothing."""

ROUNDED_ONCE = frozenset(("add", "sub", "mul", "div", "fma", "sqrt"))
"""Functions whose result is the nearest number."""

STEPS_OF_FUNCTIONS = 4
"""By so many steps of fp32 other functions differ among back ends; Metal allows exp, log, sin and cos 4."""

LONGER = 4
"""How many times as many operations another rounding may take."""


def run_counted(
    program: Program, grid: tuple[int, int, int], arguments: Items[Tensor | int | float], device: torch.device
) -> int:
    """As `executor.run`; gives how many operations ran."""
    operations = Operations()
    run(program, grid, arguments, device, partial(Counted, operations=operations))
    return operations.count


def run_shaken(
    program: Program,
    grid: tuple[int, int, int],
    arguments: Items[Tensor | int | float],
    device: torch.device,
    seed: int,
    scale: float = 1.0,
    operations: int | None = None,
) -> None:
    """As `executor.run`, with another rounding for each ``seed``. The user's random numbers stay what they are.

    Args:
        scale: how many times as much rounding as there is.
        operations: how many run without.

    Raises:
        KernelFailed: as `executor.run`, and where it takes `LONGER` as many operations.
    """
    generator = torch.Generator(device).manual_seed(seed)
    most = Operations(None if operations is None else LONGER * operations)
    run(program, grid, arguments, device, partial(Shaken, operations=most, generator=generator, scale=scale))


@dataclass
class Operations:
    """Attributes:
    most: how many may run; None for all.
    count: how many have run.
    """

    most: int | None = None
    count: int = 0


class Counted(Portion):
    """Some programs of a grid, whose operations are counted."""

    def __init__(self, *portion: Any, operations: Operations) -> None:
        super().__init__(*portion)
        self.operations = operations

    def step(self, operation: Operation) -> bool:
        """Runs one operation."""
        self.operations.count += 1
        if self.operations.most is not None and self.operations.count > self.operations.most:
            raise self.failed(operation, f"it does not end within {self.operations.most} operations")
        return super().step(operation)


class Shaken(Counted):
    """Some programs of a grid, whose results are moved."""

    def __init__(self, *portion: Any, operations: Operations, generator: torch.Generator, scale: float) -> None:
        super().__init__(*portion, operations=operations)
        self.generator, self.scale = generator, scale

    def step(self, operation: Operation) -> bool:
        """Runs one operation, and moves what it has rounded."""
        goes_on = super().step(operation)
        steps = _steps(operation)
        for value in operation.results if steps else ():
            if value in self.values:
                self.values[value] = self.moved(self.values[value], steps)
        return goes_on

    def moved(self, x: Tensor, steps: float) -> Tensor:
        """Numbers by up to so many steps of their type away; anything else as it is."""
        if not x.dtype.is_floating_point:
            return x
        wide = torch.float32 if x.dtype.itemsize < 4 else x.dtype
        by = torch.rand(x.shape, generator=self.generator, dtype=wide, device=x.device) * 2 - 1
        return (x.to(wide) * (1 + by * (self.scale * steps * torch.finfo(x.dtype).eps))).to(x.dtype)

    def do_dot(self, op: Operation, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """Terms are rounded in fp32, whatever the sides are."""
        if not a.dtype.is_floating_point:
            return super().do_dot(op, a, b, c)
        wide = torch.float64 if a.dtype == torch.float64 else torch.float32
        steps = _roundings(a.shape[-1])
        return super().do_dot(op, self.moved(a.to(wide), steps), b.to(wide), c)

    def do_reduce(self, op: Operation, *xs: Tensor) -> list[Tensor]:
        return super().do_reduce(op, *self.terms(op, xs))

    def do_scan(self, op: Operation, *xs: Tensor) -> list[Tensor]:
        return super().do_scan(op, *self.terms(op, xs))

    def terms(self, op: Operation, xs: tuple[Tensor, ...]) -> list[Tensor]:
        """What is combined by a function that rounds."""
        if reductions.known(op.blocks[0]) in EXACT or not _rounds(op):
            return list(xs)
        return [self.moved(x, _roundings(x.shape[op.attributes["axis"] + 1])) for x in xs]

    def do_atomic(self, op: Operation, pointer: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Sums of which the order is not known."""
        moved = self.moved(value, _roundings(self.count * op.operands[1].type.numel))
        return super().do_atomic(op, pointer, moved if op.attributes["fn"] == "add" else value, mask)


def _roundings(terms: int) -> float:
    """On the way of a term through the tree of a sum."""
    return max(1.0, math.log2(terms))


def _rounds(op: Operation) -> bool:
    """Whether a combining function computes anything but choices."""
    return any(inner.kind == "map" and inner.attributes["fn"] not in EXACT for inner in op.blocks[0].operations)


def _steps(op: Operation) -> float:
    """How many steps of its type the result of an operation is moved by."""
    if op.kind == "map":
        fn = op.attributes["fn"]
        if fn in EXACT:
            return 0.0
        scalar: Any = op.results[0].scalar
        narrow = isinstance(scalar, DType) and scalar.primitive_bitwidth < 32
        return 1.0 if fn in ROUNDED_ONCE or narrow else STEPS_OF_FUNCTIONS
    if op.kind in ("reduce", "scan"):
        return 1.0 if _rounds(op) else 0.0
    return 1.0 if op.kind == "dot" else 0.0
