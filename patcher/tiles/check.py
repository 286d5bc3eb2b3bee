"""Whether a program keeps to its form, so that a back end may rely on it."""

from __future__ import annotations

from patcher.tiles import types
from patcher.tiles.program import MAPS, Operation, Program, Sequence, Value

BLOCKS = {"reduce": 1, "scan": 1, "elementwise": 1, "if": 2, "for": 1, "while": 2, "call": 1}
"""Kinds with blocks, and how many."""


def check(program: Program) -> None:
    """Raises ValueError where a value is used before it is there, or types or numbers of values do not fit."""
    _sequence(program.body, {value for _, value in program.arguments})


def _sequence(sequence: Sequence, outside: set[Value]) -> None:
    known = outside | set(sequence.parameters)
    for operation in sequence.operations:
        if not known.issuperset(operation.operands):
            raise _wrong(operation, "uses a value that is not there")
        if len(operation.blocks) != BLOCKS.get(operation.kind, 0):
            raise _wrong(operation, f"has {len(operation.blocks)} blocks")
        for block in operation.blocks:
            _sequence(block, known)
        _fits(operation)
        known |= set(operation.results)
    if not known.issuperset(sequence.results or ()):
        raise ValueError("a block hands out a value that is not there")


def _fits(operation: Operation) -> None:
    """Types of operands, blocks and results."""
    results = _types(operation.results)
    if operation.kind == "map":
        shapes = {value.shape for value in (*operation.operands, *operation.results)}
        arity = MAPS.get(operation.attributes["fn"])
        if len(shapes) != 1 or arity != len(operation.operands):
            raise _wrong(operation, f"has {arity} operands of one shape, and got {_types(operation.operands)}")
    if operation.kind == "if":
        for block in operation.blocks:
            _hands_out(operation, block, results)
        if operation.operands[0].type != types.int1:
            raise _wrong(operation, "asks a scalar int1")
    if operation.kind in ("for", "while"):
        carried = _types(operation.operands[3 if operation.kind == "for" else 0 :])
        *tests, body = operation.blocks
        _hands_out(operation, body, results)
        for test in tests:
            _hands_out(operation, test, [types.int1])
        own = [operation.operands[0].type] if operation.kind == "for" else []
        if carried != results or any(_types(block.parameters) != own + carried for block in (*tests, body)):
            raise _wrong(operation, "carries values of other types than it hands out")
    if operation.kind in ("reduce", "scan"):
        _hands_out(operation, operation.blocks[0], [value.scalar for value in operation.operands])
    if operation.kind == "elementwise":
        _hands_out(operation, operation.blocks[0], [value.scalar for value in operation.results])


def _hands_out(operation: Operation, block: Sequence, expected: list[types.Type]) -> None:
    if block.results is not None and _types(block.results) != expected:
        raise _wrong(operation, f"hands out {_types(block.results)}, and not {expected}")


def _types(values: tuple[Value, ...]) -> list[types.Type]:
    return [value.type for value in values]


def _wrong(operation: Operation, why: str) -> ValueError:
    return ValueError(f"{operation.kind} {operation.attributes} at {operation.line} {why}")
