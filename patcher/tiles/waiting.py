"""Whether a program waits in a loop for what another program of the grid writes."""

from __future__ import annotations

from patcher.tiles.aliases import Aliases
from patcher.tiles.program import Operation, Program, Sequence, Value, operations


def watching(program: Program, aliases: Aliases) -> list[Operation]:
    """The loops that go on until something else stands in memory that the program writes."""
    found = []
    for loop in (op for op in program.operations() if op.kind == "while"):
        inside = [op for block in loop.blocks for op in operations(block) if op.kind == "load"]
        seeds = {op.results[0] for op in inside if _may_change(op.operands[0], aliases)}
        if seeds and _told(loop, seeds) & set(loop.blocks[0].results or ()):
            found.append(loop)
    return found


def _may_change(pointer: Value, aliases: Aliases) -> bool:
    return aliases.writable(pointer) or not aliases.of(pointer)


def _told(loop: Operation, seeds: set[Value]) -> set[Value]:
    """The values in a loop on which ``seeds`` have an influence, and these themselves."""
    told, before = set(seeds), -1
    inside = [loop, *(op for block in loop.blocks for op in operations(block))]
    while before != len(told):
        before = len(told)
        for op in inside:
            told |= _results_told(op, told)
    return told


def _results_told(op: Operation, told: set[Value]) -> set[Value]:
    if not op.blocks:
        return set(op.results) if told & set(op.operands) else set()
    if told & set(_decides(op)):
        return {*op.results, *(value for block in op.blocks for value in block.parameters)}
    if op.kind not in ("for", "while", "if"):
        within = {value for block in op.blocks for inner in operations(block) for value in inner.operands}
        return set(op.results) if told & within else set()
    found = set()
    for place, result in enumerate(op.results):
        handed = [block.results[place] for block in _ends(op) if block.results]
        if told & {*handed, *_carried(op)[place : place + 1]}:
            found |= {result, *(block.parameters[place - len(op.results)] for block in op.blocks if block.parameters)}
    return found


def _decides(op: Operation) -> tuple[Value, ...]:
    """What the course of an operation with blocks depends on."""
    if op.kind == "while":
        return op.blocks[0].results or ()
    return op.operands[:3] if op.kind == "for" else op.operands


def _carried(op: Operation) -> tuple[Value, ...]:
    """What a loop begins with."""
    return {"for": op.operands[3:], "while": op.operands}.get(op.kind, ())


def _ends(op: Operation) -> tuple[Sequence, ...]:
    """The blocks that hand out the results."""
    return op.blocks[1:] if op.kind == "while" else op.blocks
