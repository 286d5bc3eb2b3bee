"""Runs a program over a grid, portions of it side by side."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Sequence as Items
from typing import Any

import torch

from patcher.tiles.on_torch import reductions
from patcher.tiles.on_torch.carriers import bitcast, carrier, cast, itemsize, single
from patcher.tiles.on_torch.control import Control
from patcher.tiles.on_torch.core import Tensor, failed
from patcher.tiles.on_torch.maps import apply
from patcher.tiles.on_torch.memory import Access, Memory
from patcher.tiles.on_torch.narrow import narrowed, widened
from patcher.tiles.on_torch.plan import plan_of
from patcher.tiles.program import Operation, Program, Sequence
from patcher.tiles.types import Pointer, float32, float64


def run(
    program: Program,
    grid: tuple[int, int, int],
    arguments: Items[torch.Tensor | int | float],
    device: torch.device,
    portions: Callable[..., Portion] | None = None,
) -> None:
    """Runs ``program`` once for each place in ``grid``, on ``device``.

    Args:
        arguments: tensors for pointers, numbers for numbers, in the order of the program's arguments.
        portions: what runs portions of the grid.

    Raises:
        KernelFailed: an access outside of every tensor, or a ``device_assert`` that does not hold.
    """
    # Tensors made in inference mode are written too, and a script's mixed precision does not reach into a kernel.
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        memory, values = Memory(), {}
        for (name, value), given in zip(program.arguments, arguments, strict=True):
            number = memory.passed(name, given) if isinstance(given, torch.Tensor) else given
            values[value] = single(number, value.scalar, device)
        plan, total = plan_of(program), math.prod(grid)
        try:
            for first in range(0, total, plan.portion):
                numbers = range(first, min(first + plan.portion, total))
                (portions or Portion)(program, grid, numbers, memory, device).run(dict(values))
        finally:
            for operation, where in memory.strayed():
                raise failed(program, operation, f"it reads or writes outside of its tensors: {where}")


class Portion(Control):
    """Every operation of the programs of a portion."""

    # -- values ----------------------------------------------------------------------------------------------------

    def do_constant(self, op: Operation) -> Tensor:
        return single(op.attributes["value"], op.results[0].scalar, self.device)

    def do_program_id(self, op: Operation) -> Tensor:
        axis: int = op.attributes["axis"]
        return self.place[axis].to(torch.int32) if self.grid[axis] > 1 else self.place[axis][:1].to(torch.int32)

    def do_num_programs(self, op: Operation) -> Tensor:
        return torch.tensor([self.grid[op.attributes["axis"]]], dtype=torch.int32, device=self.device)

    def do_arange(self, op: Operation) -> Tensor:
        start, stop = op.attributes["start"], op.attributes["stop"]
        return torch.arange(start, stop, dtype=torch.int32, device=self.device)[None]

    def do_map(self, op: Operation, *xs: Tensor) -> Tensor:
        return apply(op.attributes["fn"], list(xs), [operand.scalar for operand in op.operands])

    def do_cast(self, op: Operation, x: Tensor) -> Tensor:
        source, target = op.operands[0].scalar, op.results[0].scalar
        if isinstance(target, Pointer) and not isinstance(source, Pointer):
            return self.memory.adopt(x.long())
        rounding: str | None = op.attributes.get("rounding")
        return cast(x, source, target, rounding)

    def do_bitcast(self, op: Operation, x: Tensor) -> Tensor:
        return bitcast(x, op.operands[0].scalar, op.results[0].scalar)

    def do_offset(self, op: Operation, pointer: Tensor, count: Tensor) -> Tensor:
        scalar = op.results[0].scalar
        assert isinstance(scalar, Pointer)
        return pointer + count.long() * itemsize(scalar.element_ty)

    # -- shapes ----------------------------------------------------------------------------------------------------

    def do_broadcast(self, op: Operation, x: Tensor) -> Tensor:
        shape = op.results[0].shape
        return (x if x.dim() > 1 else self.spread(x, len(shape))).expand(-1, *shape)

    def do_reshape(self, op: Operation, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *op.results[0].shape)

    def do_permute(self, op: Operation, x: Tensor) -> Tensor:
        return x.permute(0, *(axis + 1 for axis in op.attributes["order"]))

    def do_join(self, op: Operation, x: Tensor, y: Tensor) -> Tensor:
        return torch.stack(self.together(x, y), -1)

    def do_split(self, op: Operation, x: Tensor) -> list[Tensor]:
        return [x[..., 0], x[..., 1]]

    def do_cat(self, op: Operation, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat(self.together(x, y), op.attributes["axis"] + 1)

    def do_gather(self, op: Operation, x: Tensor, index: Tensor) -> Tensor:
        x, index = self.together(x, index)
        axis = op.attributes["axis"] + 1
        if bool(((index < 0) | (index >= x.shape[axis])).any()):
            raise self.failed(op, f"an index of gather is outside of 0 to {x.shape[axis] - 1}")
        return torch.gather(x, axis, index.long())

    def do_flip(self, op: Operation, x: Tensor) -> Tensor:
        return torch.flip(x, (op.attributes["axis"] + 1,))

    def do_sort(self, op: Operation, x: Tensor) -> Tensor:
        scalar = op.results[0].number
        if scalar.is_fp8():
            wide = torch.sort(widened(x, scalar), op.attributes["axis"] + 1, op.attributes["descending"])[0]
            return narrowed(wide, scalar)
        unsigned = scalar.name == "uint64"
        top = -(1 << 63)
        ordered = torch.sort(x ^ top if unsigned else x, op.attributes["axis"] + 1, op.attributes["descending"])[0]
        return ordered ^ top if unsigned else ordered

    def do_histogram(self, op: Operation, x: Tensor, mask: Tensor | None = None) -> Tensor:
        bins = op.results[0].shape[0]
        hit = (x >= 0) & (x < bins)
        if mask is not None:
            hit = hit & mask
        index, hit = self.together(x.long().clamp(0, bins - 1), hit)
        counts = torch.zeros(index.shape[0], bins, dtype=torch.int32, device=self.device)
        return counts.scatter_add_(1, index, hit.to(torch.int32))

    # -- arithmetic on blocks --------------------------------------------------------------------------------------

    def do_dot(self, op: Operation, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        if op.operands[0].number.is_int():
            return (c + self.whole_numbers(a, b)).to(torch.int32)
        wide = float64 if a.dtype == torch.float64 else float32
        a, b = (cast(x, operand.scalar, wide) for x, operand in zip((a, b), op.operands, strict=False))
        dtype = carrier(wide)
        return (c.to(dtype) + a @ b).to(c.dtype)

    def whole_numbers(self, a: Tensor, b: Tensor) -> Tensor:
        """A product of integers of 8 bits: exact in fp64, and in fp32 for up to 256 terms."""
        if self.device.type == "cpu":
            return (a.double() @ b.double()).to(torch.int32)
        parts = zip(torch.split(a.float(), 256, -1), torch.split(b.float(), 256, -2), strict=True)
        products = [(x @ y).to(torch.int32) for x, y in parts]
        return torch.stack(products).sum(0, dtype=torch.int32)

    def do_reduce(self, op: Operation, *xs: Tensor) -> list[Tensor]:
        fn, combine = reductions.known(op.blocks[0]), self.combining(op.blocks[0])
        axis, operands = op.attributes["axis"] + 1, self.together(*xs)
        return reductions.reduce(operands, op.operands[0].scalar, axis, fn, combine)

    def do_scan(self, op: Operation, *xs: Tensor) -> list[Tensor]:
        fn, combine = reductions.known(op.blocks[0]), self.combining(op.blocks[0])
        axis, operands = op.attributes["axis"] + 1, self.together(*xs)
        return reductions.scan(operands, op.operands[0].scalar, axis, op.attributes["reverse"], fn, combine)

    def combining(self, sequence: Sequence) -> reductions.Combine:
        """A combining block, run with pairs of elements in the place of programs."""

        def combine(sides: list[Tensor]) -> list[Tensor]:
            active, self.active = self.active, None
            results = self.sequence(sequence, sides)
            self.active = active
            assert results is not None
            return results

        return combine

    def do_elementwise(self, op: Operation, *xs: Tensor) -> list[Tensor]:
        """Every element takes the place of a program."""
        before = self.count, self.place, self.active
        extent = op.operands[0].shape[0]
        self.place = tuple(axis.repeat_interleave(extent) for axis in self.place)
        self.active = None if self.active is None else self.active.repeat_interleave(extent)
        self.count *= extent
        results = self.sequence(op.blocks[0], [x.expand(before[0], extent).reshape(-1) for x in xs])
        assert results is not None
        results = [x.expand(self.count).reshape(before[0], extent) for x in results]
        self.count, self.place, self.active = before
        return results

    # -- memory ----------------------------------------------------------------------------------------------------

    def valid(self, mask: Tensor | None, rank: int, everywhere: bool = False) -> Tensor | None:
        """Where accesses happen: under the mask, and in programs that are on this way.

        What is the same for all programs happens if any is, which is so; ``everywhere`` counts each one.
        """
        if self.active is None or not everywhere:
            return mask
        active = self.spread(self.active, rank)
        return active if mask is None else mask & active

    def access(self, op: Operation, pointer: Tensor, valid: Tensor | None) -> Access:
        """What ``op`` reads or writes."""
        roots = self.plan.roots.get(op.operands[0])
        storages = None if not roots else tuple(sorted({self.memory.numbers[name] for name in roots}))
        scalar = op.operands[0].scalar
        assert isinstance(scalar, Pointer)
        return Access(op, scalar.element_ty, pointer, valid, storages)

    def do_load(
        self, op: Operation, pointer: Tensor, mask: Tensor | None = None, other: Tensor | None = None
    ) -> Tensor:
        varies = any(x is not None and x.shape[0] > 1 for x in (pointer, mask))
        valid = self.valid(mask, pointer.dim() - 1, varies)
        read = self.memory.load(self.access(op, pointer, valid), other)
        return self.memory.adopt(read) if isinstance(op.results[0].scalar, Pointer) else read

    def do_store(self, op: Operation, pointer: Tensor, value: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        varies = any(x is not None and x.shape[0] > 1 for x in (pointer, value, mask))
        self.memory.store(self.access(op, pointer, self.valid(mask, pointer.dim() - 1, varies)), value)
        return []

    def do_atomic(self, op: Operation, pointer: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        scalar, fn = op.results[0].scalar, op.attributes["fn"]
        pointer, value = (x.expand(self.count, *x.shape[1:]) for x in (pointer, value))
        valid = self.valid(mask, pointer.dim() - 1, True)
        if fn == "add" and op.results[0] not in self.plan.used:
            self.memory.add(self.access(op, pointer, valid), value)
            return value
        flat = value.reshape(-1)

        def change(old: Tensor, which: Tensor) -> Tensor:
            return flat[which] if fn == "xchg" else apply(fn, [old, flat[which]], [scalar, scalar])

        return self.memory.atomic(self.access(op, pointer, valid), change)

    def do_cas(self, op: Operation, pointer: Tensor, compare: Tensor, value: Tensor) -> Tensor:
        pointer, compare, value = (x.expand(self.count, *x.shape[1:]) for x in (pointer, compare, value))
        wanted, new = compare.reshape(-1), value.reshape(-1)

        def change(old: Tensor, which: Tensor) -> Tensor:
            return torch.where(old == wanted[which], new[which], old)

        valid = self.valid(None, pointer.dim() - 1, True)
        return self.memory.atomic(self.access(op, pointer, valid), change)

    # -- checks and messages ---------------------------------------------------------------------------------------

    def do_assert(self, op: Operation, condition: Tensor) -> list[Tensor]:
        holds = condition if self.active is None else condition | ~self.spread(self.active, condition.dim() - 1)
        if not bool(holds.all()):
            raise self.failed(op, f"device_assert: {op.attributes['message']}")
        return []

    def readable(self, x: Tensor, scalar: Any) -> Tensor:
        """Carried values as numbers."""
        return cast(x, scalar, float32) if scalar.is_fp8() else x

    def do_print(self, op: Operation, *values: Tensor) -> list[Tensor]:
        for number in range(self.count):
            if self.active is None or bool(self.active.expand(self.count)[number]):
                place = tuple(int(axis[number]) for axis in self.place)
                wide = [self.readable(x, value.scalar) for x, value in zip(values, op.operands, strict=True)]
                shown = [x[min(number, x.shape[0] - 1)].tolist() for x in wide]
                print(f"pid {place} {op.attributes['text']}", *shown)
        return []
