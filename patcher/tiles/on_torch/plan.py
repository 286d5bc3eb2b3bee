"""What is known of a program before it runs: how many programs go side by side, and how long values live."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from patcher.tiles.aliases import aliases_of
from patcher.tiles.program import Operation, Program, Sequence, Value, operations
from patcher.tiles.types import Pointer
from patcher.tiles.waiting import watching

ELEMENTS_AT_ONCE = 1 << 20
"""Programs times elements of the largest block that run side by side."""


@dataclass(frozen=True)
class Plan:
    """Attributes:
    largest: elements of the largest block.
    waits: whether a program may wait for another one, so that each must have run before the next.
    deaths: for each operation, by its id, the values that nothing needs after it.
    used: the values that anything needs.
    roots: for pointers the arguments that they come from, where that is known.
    """

    largest: int
    waits: bool
    deaths: dict[int, tuple[Value, ...]]
    used: frozenset[Value]
    roots: dict[Value, frozenset[str]]

    @property
    def portion(self) -> int:
        """How many programs run side by side."""
        return 1 if self.waits else max(1, ELEMENTS_AT_ONCE // self.largest)


@lru_cache(maxsize=4096)
def plan_of(program: Program) -> Plan:
    """The plan, made once for each program."""
    found = list(program.operations())
    waits = any(inner.kind in ("atomic", "cas") for op in found if op.kind == "while" for inner in _within(op))
    largest = max((value.type.numel for op in found for value in op.results), default=1)
    used = {value for op in found for value in op.operands}
    used |= {value for op in found for block in op.blocks for value in block.results or ()}
    aliases = aliases_of(program)
    roots = {} if any(map(_makes_pointers, found)) else aliases.roots
    return Plan(largest, waits or bool(watching(program, aliases)), _deaths(program.body), frozenset(used), roots)


def _makes_pointers(operation: Operation) -> bool:
    """Whether pointers come out of memory or are made of numbers."""
    made = any(isinstance(value.scalar, Pointer) for value in operation.results)
    numbers = not any(isinstance(value.scalar, Pointer) for value in operation.operands)
    return made and (operation.kind == "load" or (operation.kind in ("cast", "bitcast") and numbers))


def _within(operation: Operation) -> list[Operation]:
    return [inner for block in operation.blocks for inner in operations(block)]


def _deaths(body: Sequence) -> dict[int, tuple[Value, ...]]:
    deaths: dict[int, tuple[Value, ...]] = {}

    def needed(sequence: Sequence) -> set[Value]:
        """Every value that a block touches, those from outside among them."""
        last: dict[Value, int] = {}
        for operation in sequence.operations:
            touched = {*operation.operands, *operation.results}
            for inner in operation.blocks:
                touched |= needed(inner)
            last.update(dict.fromkeys(touched, id(operation)))
        own = {value for operation in sequence.operations for value in operation.results}
        for value in own - set(sequence.results or ()):
            deaths[last[value]] = (*deaths.get(last[value], ()), value)
        return set(last) | set(sequence.results or ())

    needed(body)
    return deaths
