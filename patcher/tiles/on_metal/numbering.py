"""Which values are the same, the same in all elements, or different in each: what tells whether threads may meet."""

from __future__ import annotations

from patcher.tiles.program import Operation, Value

PURE = frozenset(("constant", "program_id", "num_programs", "arange", "map", "cast", "bitcast", "offset"))
PURE |= {"broadcast", "reshape", "permute"}
"""Operations whose result depends on operands and attributes alone."""

INJECTIVE = ("add", "sub", "xor")
"""Functions that keep different elements different if the other side is one number."""


class Numbering:
    """Attributes:
    uniform: blocks that hold one number.
    distinct: blocks that hold no number twice.
    """

    def __init__(self) -> None:
        self.uniform: set[Value] = set()
        self.distinct: set[Value] = set()
        self._first: dict[Value, Value] = {}
        self._computed: dict[object, Value] = {}

    def first(self, value: Value) -> Value:
        """The value that was computed first of those that are the same as this one."""
        return self._first.get(value, value)

    def note(self, op: Operation) -> None:
        """Takes an operation in, after those before it."""
        if op.kind not in PURE:
            return
        result, operands = op.results[0], tuple(map(self.first, op.operands))
        key = (op.kind, str(sorted(op.attributes.items())), operands, result.type)
        self._first[result] = self._computed.setdefault(key, result)
        if all(not operand.shape or operand in self.uniform for operand in op.operands) and op.kind != "arange":
            self.uniform.add(result)
        if self._is_distinct(op):
            self.distinct.add(result)

    def _is_distinct(self, op: Operation) -> bool:
        found = [operand in self.distinct for operand in op.operands]
        others = [operand in self.uniform for operand in op.operands]
        if op.kind == "arange":
            return True
        if op.kind in ("reshape", "permute"):
            return found[0]
        if op.kind == "cast":
            narrows = op.results[0].scalar.primitive_bitwidth < op.operands[0].scalar.primitive_bitwidth
            return found[0] and not narrows and op.results[0].scalar.is_int() is op.operands[0].scalar.is_int()
        one_by_one = op.kind == "offset" or (op.kind == "map" and op.attributes["fn"] in INJECTIVE)
        return one_by_one and found.count(True) == 1 and others.count(True) == 1
