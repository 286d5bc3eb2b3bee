"""Ways that part: both are gone, under a mask."""

from __future__ import annotations

from typing import Any

import torch

from patcher.tiles.on_torch.core import Core, Tensor
from patcher.tiles.program import Operation


class Control(Core):
    """Operations that hold blocks, but those that combine elements."""

    def choose(self, condition: Tensor, yes: list[Tensor], no: list[Tensor]) -> list[Tensor]:
        """Values of the programs for which the condition holds, and of the others."""
        return [torch.where(self.spread(condition, x.dim() - 1), x, y) for x, y in zip(yes, no, strict=True)]

    def agreed(self, x: Tensor) -> Any:
        """What all programs on this way have, as a Python number; None where they differ."""
        if x.numel() > 1 and self.active is not None:
            x = x.expand(self.active.shape)[self.active]
        return x[0].item() if x.numel() == 1 or bool((x == x[0]).all()) else None

    def do_if(self, op: Operation, condition: Tensor) -> list[Tensor] | None:
        agreed = self.agreed(condition)
        if agreed is not None:
            return self.sequence(op.blocks[0 if agreed else 1], [])
        before = self.active
        entered = [way if before is None else way & before for way in (condition, ~condition)]
        results, left = [], []
        for way, block in zip(entered, op.blocks, strict=True):
            self.active = way
            results.append(self.sequence(block, []))
            left.append(torch.zeros_like(way) if results[-1] is None else self.active)
        everyone = all(way is still for way, still in zip(entered, left, strict=True))
        self.active = before if everyone else torch.logical_or(*left)
        yes, no = results
        return self.choose(condition, yes, no) if yes is not None and no is not None else no if yes is None else yes

    def do_for(self, op: Operation, start: Tensor, stop: Tensor, step: Tensor, *initial: Tensor) -> list[Tensor]:
        (body,) = op.blocks
        bounds = [self.agreed(x) for x in (start, stop, step)]
        carried = list(initial)
        if None not in bounds:
            for number in range(*bounds):
                turn = torch.tensor([number], dtype=start.dtype, device=self.device)
                carried = self.sequence(body, [turn, *carried]) or []
            return carried
        before, index = self.active, start
        while True:
            going = (index > stop) if op.attributes["down"] else (index < stop)
            self.active = going if before is None else going & before
            if not bool(self.active.any()):
                break
            new = self.sequence(body, [index, *carried]) or []
            carried, index = self.choose(self.active, new, carried), index + step
        self.active = before
        return carried

    def do_while(self, op: Operation, *initial: Tensor) -> list[Tensor]:
        test, body = op.blocks
        before, carried = self.active, list(initial)
        while True:
            changes = self.memory.changes
            (condition,) = self.sequence(test, carried) or []
            if self.active is not None:
                condition = condition & self.active
            if not bool(condition.any()):
                break
            everyone = condition.numel() == 1 and self.active is None
            self.active = None if everyone else condition.expand(self.count)
            new = self.sequence(body, carried) or []
            new = new if self.active is None else self.choose(self.active, new, carried)
            if self.plan.waits and changes == self.memory.changes and all(map(torch.equal, new, carried)):
                raise self.failed(op, "it waits for what a later program writes, and programs run one after the other")
            carried = new
        self.active = before
        return carried

    def do_call(self, op: Operation) -> list[Tensor]:
        before = self.active
        self.frames.append([])
        self.sequence(op.blocks[0], [])
        self.active = before
        returned = self.frames.pop()
        if not op.results:
            return []
        results = returned[0][1]
        for mask, values in returned[1:]:
            results = values if mask is None else self.choose(mask, values, results)
        return results

    def do_return(self, op: Operation, *values: Tensor) -> None:
        self.frames[-1].append((self.active, list(values)))
