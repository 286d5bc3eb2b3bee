"""Some programs of a grid side by side: their values, which are on the present way, and operations in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from patcher.errors import KernelFailed, PatcherError, compose
from patcher.tiles.on_torch.memory import Memory
from patcher.tiles.on_torch.plan import plan_of
from patcher.tiles.program import Operation, Program, Sequence, Value

Tensor: TypeAlias = torch.Tensor
Mask: TypeAlias = "Tensor | None"
"""Which programs are on a way, of shape ``(programs,)``; None for all of them."""


def failed(program: Program, operation: Operation, why: str) -> KernelFailed:
    """The error of an operation."""
    return KernelFailed(
        compose(
            f"the Triton kernel {program.name} failed: {why}",
            target=f"{program.name} ({operation.line})",
            found=operation.kind,
            left="what the kernel has written stays written",
            run="check the arguments of the launch: shapes, strides, masks and the grid",
        )
    )


class Core:
    """Some programs of a grid, side by side.

    Attributes:
        values: tensors with the programs' axis first.
        active: which programs are on the present way.
        frames: for each function that is open, what returned from it: the mask and the values.
    """

    def __init__(
        self,
        program: Program,
        grid: tuple[int, int, int],
        numbers: range,
        memory: Memory,
        device: torch.device,
    ) -> None:
        self.program, self.grid, self.memory, self.device = program, grid, memory, device
        self.plan = plan_of(program)
        self.count = len(numbers)
        position = torch.arange(numbers.start, numbers.stop, device=device)
        x, y, _ = grid
        self.place: tuple[Tensor, ...] = (position % x, position // x % y, position // (x * y))
        self.values: dict[Value, Tensor] = {}
        self.active: Mask = None
        self.frames: list[list[tuple[Mask, list[Tensor]]]] = [[]]

    def run(self, arguments: dict[Value, Tensor]) -> None:
        self.values = arguments
        self.sequence(self.program.body, [])

    def sequence(self, sequence: Sequence, arguments: list[Tensor]) -> list[Tensor] | None:
        """Runs operations in order; None where every program has returned."""
        self.values.update(zip(sequence.parameters, arguments, strict=True))
        for operation in sequence.operations:
            if not self.step(operation):
                return None
            for value in self.plan.deaths.get(id(operation), ()):
                self.values.pop(value, None)
        return None if sequence.results is None else [self.values[value] for value in sequence.results]

    def step(self, operation: Operation) -> bool:
        """Runs one operation; False where no program goes on after it."""
        perform: Callable[..., Any] = getattr(self, f"do_{operation.kind}")
        operands = [self.values[operand] for operand in operation.operands]
        try:
            results = perform(operation, *operands)
        except PatcherError:
            raise
        except torch.OutOfMemoryError as error:  # which scripts catch by its type
            error.add_note(f"in the Triton kernel {self.program.name} ({operation.line}): {operation.kind}")
            raise
        except (TypeError, RuntimeError) as error:  # what the device does not have, or torch refuses
            raise self.failed(operation, str(error)) from error
        if results is None:
            return False
        results = results if isinstance(results, list) else [results]
        self.values.update(zip(operation.results, results, strict=True))
        return True

    def failed(self, operation: Operation, why: str) -> KernelFailed:
        """The error of an operation."""
        return failed(self.program, operation, why)

    def spread(self, x: Tensor, rank: int) -> Tensor:
        """A value of every program (``(programs,)``) beside blocks with ``rank`` axes."""
        return x.reshape(-1, *(1,) * rank)

    def together(self, *xs: Tensor) -> list[Tensor]:
        """Blocks with the same programs' axis."""
        count = max(x.shape[0] for x in xs)
        return [x.expand(count, *x.shape[1:]) for x in xs]
