"""Which arguments a pointer may come from, and which of them a program reads and writes through."""

from __future__ import annotations

from dataclasses import dataclass, field

from patcher.tiles.program import Operation, Program, Sequence, Value
from patcher.tiles.types import Pointer

WRITING = ("store", "atomic", "cas")
READING = ("load", "atomic", "cas")


@dataclass
class Aliases:
    """Attributes:
    roots: for each pointer the arguments that it may come from.
    written: the arguments that are written.
    read: those that are read.
    """

    roots: dict[Value, frozenset[str]] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)

    def of(self, value: Value) -> frozenset[str]:
        """The arguments that ``value`` may come from."""
        return self.roots.get(value, frozenset())

    def writable(self, value: Value) -> bool:
        """Whether ``value`` may be written through."""
        return bool(self.of(value) & self.written)


def aliases_of(program: Program) -> Aliases:
    """What is known without running the program."""
    found = Aliases({v: frozenset((name,)) for name, v in program.arguments if isinstance(v.scalar, Pointer)})
    frames: list[Operation] = []
    before = None
    while before != (before := _count(found)):
        _walk(program.body, found, frames)
    return found


def _count(found: Aliases) -> tuple[int, int, int]:
    return sum(map(len, found.roots.values())), len(found.written), len(found.read)


def _walk(sequence: Sequence, found: Aliases, frames: list[Operation]) -> None:
    for operation in sequence.operations:
        if operation.kind in READING:
            found.read |= found.of(operation.operands[0])
        if operation.kind in WRITING:
            found.written |= found.of(operation.operands[0])
        elif operation.kind == "return":
            _join(found, frames[-1].results if frames else (), operation.operands)
        elif operation.blocks:
            _structured(operation, found, frames)
        else:
            together = frozenset().union(*map(found.of, operation.operands))
            for result in operation.results:
                _join(found, (result,), (), together)
        if any(found.of(value) & found.written for value in operation.results):  # one type for all that may meet
            found.written |= frozenset().union(*map(found.of, operation.results))


def _structured(operation: Operation, found: Aliases, frames: list[Operation]) -> None:
    carried = operation.operands[3:] if operation.kind == "for" else operation.operands
    for block in operation.blocks:
        if operation.kind in ("for", "while"):
            parameters = block.parameters[1:] if operation.kind == "for" else block.parameters
            _join(found, parameters, carried)
            _join(found, parameters, operation.results)
            _join(found, operation.results, carried)
        if operation.kind == "call":
            frames.append(operation)
        _walk(block, found, frames)
        if operation.kind == "call":
            frames.pop()
        if block.results and (operation.kind != "while" or block is operation.blocks[1]):
            _join(found, operation.results, block.results)


def _join(
    found: Aliases, results: tuple[Value, ...], values: tuple[Value, ...], more: frozenset[str] = frozenset()
) -> None:
    for number, result in enumerate(results):
        if isinstance(result.scalar, Pointer):
            own = found.of(values[number]) if values else more
            found.roots[result] = found.of(result) | own
