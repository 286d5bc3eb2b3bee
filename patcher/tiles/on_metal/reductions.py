"""Reductions, scans and sorting: pairs of elements that differ in one bit of their index, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from patcher.tiles.on_metal.control import Control
from patcher.tiles.on_metal.core import SIMDGROUP_BITS, UNROLLED
from patcher.tiles.on_metal.forms import Held, Loop, Uniform
from patcher.tiles.on_metal.layouts import Layout, Place, axis_bits, bits_of, compact, index_text, registers
from patcher.tiles.on_metal.maps import expression
from patcher.tiles.on_metal.names import NotOnMetal, size_of, type_name
from patcher.tiles.program import Operation, Sequence, operations
from patcher.tiles.types import DType, Scalar

COMMUTATIVE = frozenset(("add", "mul", "min", "max", "minnan", "maxnan", "and", "or", "xor"))
"""Functions for which elements are combined in any order: those that a thread has itself come first."""

SIMD_NAMES = {"add": "sum", "max": "max", "min": "min", "and": "and", "or": "or", "xor": "xor"}
"""What a simdgroup reduces by one instruction."""

UNROLLED_SORT = 512
"""Steps times registers of a sort whose loops are unrolled."""

IN_COMBINING = frozenset(("constant", "map", "cast", "bitcast", "if", "call", "return", "reshape", "broadcast"))
"""What a combining function may hold."""

Texts = list[str]
Combine = Callable[[Texts, Texts], Texts]


@dataclass(frozen=True)
class Columns:
    """Blocks that are reduced together, all in one layout.

    Attributes:
        names: of their registers.
        scalars: types of their elements.
        layout: of them all; bits of which they no longer depend are nowhere.
    """

    names: tuple[str, ...]
    scalars: tuple[Scalar, ...]
    layout: Layout

    def at(self, loop: Loop, places: Layout, number: int | None = None, which: int = 0) -> Texts:
        """The elements; where a register bit ``number`` is not among the places, those where it is ``which``."""
        base = which << number if number is not None else 0
        return [Held(name, self.layout, base).at(loop, places) for name in self.names]


class Reductions(Control):
    """Operations along an axis."""

    # -- combining -------------------------------------------------------------------------------------------------

    def combining(self, block: Sequence) -> tuple[Combine, bool]:
        """How two sides are combined, and whether their order does not count."""
        fn = _known(block)
        if fn is not None:
            scalars = [value.scalar for value in block.parameters]
            return lambda left, right: [expression(fn, left + right, scalars, self.uses)], fn in COMMUTATIVE
        if any(op.kind not in IN_COMBINING for op in operations(block)) or block.results is None:
            raise NotOnMetal("a combining function that is not plain arithmetic")
        return self.called(self.function(block), [type_name(value.scalar) for value in block.results]), False

    def called(self, name: str, types: Texts) -> Combine:
        """Combining by a call of the function ``name``."""

        def combine(left: Texts, right: Texts) -> Texts:
            results = [self.fresh("c") for _ in types]
            for type, result in zip(types, results, strict=True):
                self.line(f"{type} {result};")
            self.line(f"{name}({', '.join([*left, *right, *results])});")
            return results

        return combine

    def function(self, block: Sequence) -> str:
        """A combining block as a function of its own."""
        assert block.results is not None
        name, outer, depth = self.fresh("combine"), self.lines, self.depth
        self.lines, self.depth = [], 1
        parameters = []
        for value in block.parameters:
            self.forms[value] = Uniform(self.fresh("a"))
            parameters.append(f"{type_name(value.scalar)} {self.scalar(value)}")
        outs = [self.fresh("o") for _ in block.results]
        parameters += [f"thread {type_name(v.scalar)}& {out}" for out, v in zip(outs, block.results, strict=True)]
        frames, self.frames = self.frames, []
        self.sequence(block)
        self.frames = frames
        for out, value in zip(outs, block.results, strict=True):
            self.line(f"{out} = {self.scalar(value)};")
        self.functions += [f"inline void {name}({', '.join(parameters)}) {{", *self.lines, "}", ""]
        self.lines, self.depth = outer, depth
        return name

    # -- partners --------------------------------------------------------------------------------------------------

    def columns(self, op: Operation) -> Columns:
        """The operands, each element of which is in its place."""
        first = op.operands[0]
        layout = self.common([self.forms[operand] for operand in op.operands], first)
        held = [self.held(operand, layout) for operand in op.operands]
        return Columns(tuple(h.name for h in held), tuple(v.scalar for v in op.operands), held[0].layout)

    def like(self, columns: Columns, layout: Layout) -> Columns:
        """New registers for values of the same types."""
        names = tuple(self.declare(type_name(scalar), layout).name for scalar in columns.scalars)
        return Columns(names, columns.scalars, layout)

    def shared_columns(self, columns: Columns) -> tuple[Texts, Layout]:
        """Writes the elements to threadgroup memory: names there, and the places of the index's bits."""
        layout = tuple(place for place in columns.layout if place is not None)
        offset, names = 0, []
        for name, scalar in zip(columns.names, columns.scalars, strict=True):
            names.append(self.shared_block(Held(name, layout), scalar, len(layout), offset))
            offset += -(-(size_of(scalar) << len(layout)) // 8) * 8
        self.publish()
        return names, layout

    def partners(self, columns: Columns, place: Place) -> Callable[[], Texts]:
        """Texts of the elements whose index differs in the bit that is at ``place``."""
        bit = 1 << place.number
        if place.kind == "r":
            return lambda: [f"{name}[r ^ {bit}u]" for name in columns.names]
        if place.number < SIMDGROUP_BITS:
            own, pairs = _register(columns.layout), list(zip(columns.names, columns.scalars, strict=True))
            return lambda: [_shuffled(f"{name}[{own}]", scalar, bit) for name, scalar in pairs]
        names, layout = self.shared_columns(columns)
        other = f"{index_text(layout)} ^ {1 << layout.index(place)}u"
        return lambda: [f"{name}[{other}]" for name in names]

    def named(self, columns: Columns, texts: Texts) -> Texts:
        """Names for texts that are used more than once."""
        names = [self.fresh("e") for _ in texts]
        for name, scalar, text in zip(names, columns.scalars, texts, strict=True):
            self.line(f"{type_name(scalar)} {name} = {text};")
        return names

    def chosen(self, columns: Columns, condition: str, yes: Texts, no: Texts) -> Texts:
        """Names for one side or the other."""
        return self.named(columns, [f"{condition} ? {a} : {b}" for a, b in zip(yes, no, strict=True)])

    # -- reductions ------------------------------------------------------------------------------------------------

    def do_reduce(self, op: Operation) -> None:
        columns, (combine, commutes) = self.columns(op), self.combining(op.blocks[0])
        axis = axis_bits(op.operands[0].shape, op.attributes["axis"])
        order = list(axis)
        if commutes:  # what a thread has itself first, then what is in its simdgroup
            order.sort(key=lambda bit: _place(columns, bit))
            order.sort(key=lambda bit: _place(columns, bit).kind)
        fn = _known(op.blocks[0]) or ""
        for bits in _together(order, columns):
            columns = self.reduced(columns, bits, combine, fn)
        layout = tuple(place for bit, place in enumerate(columns.layout) if bit not in axis)
        for name, result in zip(columns.names, op.results, strict=True):
            self.forms[result] = Held(name, layout) if result.shape else Uniform(f"{name}[0]")

    def reduced(self, columns: Columns, bits: list[int], combine: Combine, fn: str) -> Columns:
        """The elements that differ in ``bits`` alone become one."""
        places = [_place(columns, bit) for bit in bits]
        layout = tuple(None if bit in bits else place for bit, place in enumerate(columns.layout))
        if places[0].kind == "r":
            return self.within_thread(columns, layout, places[0], combine)
        if places[0].number >= SIMDGROUP_BITS:
            return self.across_simdgroups(columns, layout, places, combine)
        if len(places) == SIMDGROUP_BITS and _in_hardware(fn, columns.scalars):
            return self.in_hardware(columns, layout, fn)
        for bit in bits:
            columns = self.in_simdgroup(columns, bit, combine)
        return columns

    def within_thread(self, columns: Columns, layout: Layout, place: Place, combine: Combine) -> Columns:
        """Two registers become one."""
        result, inner = self.like(columns, compact(layout)), Columns(columns.names, columns.scalars, layout)
        with self.each(result.layout) as loop:
            sides = [inner.at(loop, result.layout, place.number, which) for which in (0, 1)]
            self.keep(result, loop, combine(*sides))
        return result

    def in_simdgroup(self, columns: Columns, bit: int, combine: Combine) -> Columns:
        """Two lanes get what they have together."""
        place, layout = _place(columns, bit), (*columns.layout[:bit], None, *columns.layout[bit + 1 :])
        partners, result = self.partners(columns, place), self.like(columns, layout)
        with self.each(layout) as loop:
            own, other = columns.at(loop, columns.layout), self.named(columns, partners())
            left = self.chosen(columns, _bit(place), other, own)
            right = self.chosen(columns, _bit(place), own, other)
            self.keep(result, loop, combine(left, right))
        return result

    def in_hardware(self, columns: Columns, layout: Layout, fn: str) -> Columns:
        """All lanes get what they have together, by one instruction; among numbers NaN has no say."""
        result, (scalar,) = self.like(columns, layout), columns.scalars
        assert isinstance(scalar, DType)
        with self.each(layout) as loop:
            (own,) = columns.at(loop, columns.layout)
            text = f"simd_{SIMD_NAMES[fn]}({own})"
            if scalar.is_floating() and fn != "add":
                worst = "-INFINITY" if fn == "max" else "INFINITY"
                text = f"simd_{SIMD_NAMES[fn]}(isnan({own}) ? {worst} : {own})"
                text = f"simd_all(isnan({own})) ? NAN : {text}"
            self.keep(result, loop, [text])
        return result

    def across_simdgroups(self, columns: Columns, layout: Layout, places: list[Place], combine: Combine) -> Columns:
        """Every thread combines, in the order of the index, what all of them have put into threadgroup memory."""
        (names, shared), result = self.shared_columns(columns), self.like(columns, layout)
        first = index_text(tuple(None if place in places else place for place in shared))
        rest = tuple(Place("q", places.index(place)) if place in places else None for place in shared)
        with self.each(layout) as loop:
            self.keep(result, loop, [f"{name}[{first}]" for name in names])
            with self.braces(f"for (uint q = 1u; q < {1 << len(places)}u; ++q)"):
                others = self.named(columns, [f"{name}[{first} | {index_text(rest)}]" for name in names])
                self.keep(result, loop, combine(result.at(loop, layout), others))
        return result

    def keep(self, columns: Columns, loop: Loop, texts: Texts) -> None:
        """Assigns the elements of a turn."""
        for target, text in zip(columns.at(loop, columns.layout), texts, strict=True):
            self.line(f"{target} = {text};")

    # -- scans -----------------------------------------------------------------------------------------------------

    def do_scan(self, op: Operation) -> None:
        running, (combine, _) = self.columns(op), self.combining(op.blocks[0])
        total, reverse = running, op.attributes["reverse"]
        for bit in axis_bits(op.operands[0].shape, op.attributes["axis"]):
            running, total = self.scanned(running, total, bit, combine, reverse)
        for name, result in zip(running.names, op.results, strict=True):
            self.forms[result] = Held(name, running.layout)

    def scanned(
        self, running: Columns, total: Columns, bit: int, combine: Combine, reverse: bool
    ) -> tuple[Columns, Columns]:
        """Running results and totals within stretches of twice the length."""
        place = _place(running, bit)
        partners, layout = self.partners(total, place), running.layout
        new_running, new_total = self.like(running, layout), self.like(total, layout)
        with self.each(layout) as loop:
            other, own = self.named(total, partners()), total.at(loop, layout)
            later = f"!{_bit(place)}" if reverse else _bit(place)
            left, right = self.chosen(total, later, other, own), self.chosen(total, later, own, other)
            self.keep(new_total, loop, combine(left, right))
            here = running.at(loop, layout)
            after = combine(other, here)
            self.keep(new_running, loop, self.chosen(running, later, after, here))
        return new_running, new_total

    # -- sorting ---------------------------------------------------------------------------------------------------

    def do_sort(self, op: Operation) -> None:
        """Batcher's bitonic network."""
        (source,), (result,) = op.operands, op.results
        columns = self.columns(op)
        length = bits_of(source.shape[-1])
        self.unrolled = UNROLLED_SORT // max(1, length * (length + 1) // 2)
        for stage in range(1, length + 1):
            for bit in reversed(range(stage)):
                upwards = [] if stage == length else [f"!{_bit(_place(columns, stage))}"]
                columns = self.swapped(columns, bit, upwards, op.attributes["descending"])
        self.unrolled = UNROLLED
        self.forms[result] = Held(columns.names[0], columns.layout)

    def swapped(self, columns: Columns, bit: int, upwards: Texts, descending: bool) -> Columns:
        """The lesser element of each pair first where the order goes upwards, else the greater one."""
        place = _place(columns, bit)
        partners, result = self.partners(columns, place), self.like(columns, columns.layout)
        first = f"!{_bit(place)}"
        lesser = f"({first} == {upwards[0]})" if upwards else first
        with self.each(columns.layout) as loop:
            (own,), (other,) = columns.at(loop, columns.layout), self.named(columns, partners())
            low, high = (own, other) if descending else (other, own)
            ahead = _precedes(low, high, columns.scalars[0])
            behind = _precedes(high, low, columns.scalars[0])
            self.keep(result, loop, [f"({lesser} ? {ahead} : {behind}) ? {other} : {own}"])
        return result


def _known(block: Sequence) -> str | None:
    """The elementwise function that a combining block consists of, if it is one."""
    if len(block.operations) != 1 or block.operations[0].kind != "map":
        return None
    (operation,) = block.operations
    whole = operation.operands == block.parameters and operation.results == block.results
    return str(operation.attributes["fn"]) if whole else None


def _place(columns: Columns, bit: int) -> Place:
    place = columns.layout[bit]
    assert place is not None
    return place


def _together(order: list[int], columns: Columns) -> list[list[int]]:
    """Bits in order, those side by side that are lanes, and those that are simdgroups."""
    found: list[list[int]] = []
    before = -1
    for bit in order:
        place = _place(columns, bit)
        kind = -1 if place.kind == "r" else int(place.number >= SIMDGROUP_BITS)
        if found and kind == before != -1:
            found[-1].append(bit)
        else:
            found.append([bit])
        before = kind
    return found


def _in_hardware(fn: str, scalars: tuple[Scalar, ...]) -> bool:
    names = ("int32", "uint32", "fp32") if fn in ("add", "max", "min") else ("int32", "uint32")
    return fn in SIMD_NAMES and [getattr(scalar, "name", "") in names for scalar in scalars] == [True]


def _register(layout: Layout) -> str:
    return "r" if registers(layout) > 1 else "0u"


def _bit(place: Place) -> str:
    """Whether the bit at ``place`` is set."""
    return f"bool(({place.kind} >> {place.number}) & 1u)"


def _precedes(x: str, y: str, scalar: Scalar) -> str:
    """``x`` before ``y``, NaN behind all numbers."""
    floating = isinstance(scalar, DType) and scalar.is_floating()
    return f"({x} < {y} || (isnan({y}) && !isnan({x})))" if floating else f"({x} < {y})"


def _shuffled(text: str, scalar: Scalar, bit: int) -> str:
    """The element of the thread whose number differs in a bit; Metal shuffles numbers of 16 and 32 bits."""
    assert isinstance(scalar, DType)
    kind = type_name(scalar)
    if scalar.primitive_bitwidth == 64:
        return f"as_type<{kind}>(simd_shuffle_xor(as_type<uint2>({text}), {bit}u))"
    if scalar.primitive_bitwidth < 16:
        return f"{kind}(simd_shuffle_xor(short({text}), {bit}u))"
    if scalar.is_bf16():
        return f"as_type<bfloat>(simd_shuffle_xor(as_type<ushort>({text}), {bit}u))"
    return f"simd_shuffle_xor({text}, {bit}u)"
