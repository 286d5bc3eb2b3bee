"""Numbers, elementwise functions, and shapes."""

from __future__ import annotations

from patcher.tiles.on_metal import maps, names
from patcher.tiles.on_metal.core import Build, Core
from patcher.tiles.on_metal.forms import Counted, Held, Loop, Mapped, Moved, Uniform, size_of_rule
from patcher.tiles.on_metal.layouts import Place, bits_of, broadcast_bits, compact, permuted_bits, registers
from patcher.tiles.program import Operation, Value
from patcher.tiles.types import DType, Pointer

LARGEST_RULE = 24
"""Functions of a rule; a longer one is computed once and kept."""


class Values(Core):
    """Operations that are done element by element, or only move bits of an index."""

    # -- scalars ---------------------------------------------------------------------------------------------------

    def do_constant(self, op: Operation) -> None:
        result = op.results[0]
        self.forms[result] = Uniform(names.constant(op.attributes["value"], result.number))

    def do_program_id(self, op: Operation) -> None:
        self.forms[op.results[0]] = Uniform(f"int(group.{'xyz'[op.attributes['axis']]})")

    def do_num_programs(self, op: Operation) -> None:
        self.forms[op.results[0]] = Uniform(f"int(groups.{'xyz'[op.attributes['axis']]})")

    def do_arange(self, op: Operation) -> None:
        self.forms[op.results[0]] = Counted(op.attributes["start"])

    # -- element by element ----------------------------------------------------------------------------------------

    def do_map(self, op: Operation) -> None:
        fn, scalars = op.attributes["fn"], [operand.scalar for operand in op.operands]
        cheap = fn in maps.CHEAP and all(_is_whole(operand) for operand in op.operands)
        self.elementwise(op, lambda texts: maps.expression(fn, texts, scalars, self.uses), cheap)

    def do_cast(self, op: Operation) -> None:
        (source,), (result,) = op.operands, op.results
        if isinstance(source.scalar, Pointer) and isinstance(result.scalar, Pointer):
            self.elementwise(op, lambda texts: f"(({self.type_of(result)}){texts[0]})", True)
            return
        rounding = op.attributes.get("rounding")
        cheap = _is_whole(source) and _is_whole(result)
        self.elementwise(
            op, lambda texts: names.cast(texts[0], source.scalar, result.scalar, self.uses, rounding), cheap
        )

    def do_bitcast(self, op: Operation) -> None:
        source, target = op.operands[0].scalar, op.results[0].scalar
        self.elementwise(op, lambda texts: names.bitcast(texts[0], source, target), False)

    def do_offset(self, op: Operation) -> None:
        self.elementwise(op, lambda texts: f"({texts[0]} + {texts[1]})", True)

    def elementwise(self, op: Operation, build: Build, cheap: bool) -> None:
        """The result of a function of elements, as a rule where that is cheap."""
        (result,), forms = op.results, [self.forms[operand] for operand in op.operands]
        if not result.shape:
            self.put(result, build([self.scalar(operand) for operand in op.operands]))
            return
        size = 1 + sum(map(size_of_rule, forms))
        if cheap and size <= LARGEST_RULE and not any(isinstance(form, Held) for form in forms):
            self.forms[result] = Mapped(self.type_of(result), tuple(forms), build, size)
            return
        scalars = [operand.scalar for operand in op.operands]
        self.forms[result] = self.compute(result, forms, scalars, self.common(forms, result), build)

    # -- shapes ----------------------------------------------------------------------------------------------------

    def do_broadcast(self, op: Operation) -> None:
        (source,), (result,) = op.operands, op.results
        self.move(op, broadcast_bits(source.shape, result.shape) if source.shape else ())

    def do_reshape(self, op: Operation) -> None:
        self.move(op, tuple(range(bits_of(op.results[0].type.numel))))

    def do_permute(self, op: Operation) -> None:
        self.move(op, permuted_bits(op.operands[0].shape, op.attributes["order"]))

    def move(self, op: Operation, to: tuple[int, ...]) -> None:
        """The same elements under other indices: bit i of the operand's becomes bit ``to[i]``."""
        (source,), (result,) = op.operands, op.results
        form = self.forms[source]
        if isinstance(form, Mapped | Moved | Counted) and not result.shape:
            self.put(result, self.scalar(source))
            return
        if isinstance(form, Held) and not result.shape:
            form = Uniform(form.at(Loop(self.line, self.fresh), ()))
        self.forms[result] = form.moved(to, bits_of(result.type.numel))

    def do_join(self, op: Operation) -> None:
        self.forms[op.results[0]] = self.beside(op, 0)

    def do_cat(self, op: Operation) -> None:
        shape, axis = op.results[0].shape, op.attributes["axis"]
        self.forms[op.results[0]] = self.beside(op, sum(bits_of(extent) for extent in shape[axis:]) - 1)

    def beside(self, op: Operation, bit: int) -> Held:
        """Two blocks in one, whose index has a new bit that says which of the two."""
        (result,), (x, y) = op.results, op.operands
        forms = [self.forms[x], self.forms[y]]
        layout = self.common(forms, x)
        settled = [self.settled(form, x.scalar, layout) for form in forms]
        new = Place("r", bits_of(registers(layout)))
        both = self.declare(self.type_of(result), (*layout[:bit], new, *layout[bit:]))
        with self.each(layout) as loop:
            here = "r" if new.number else "0u"
            for half, form in enumerate(settled):
                self.line(f"{both.name}[{here} | {half << new.number}u] = {form.at(loop, layout)};")
        return both

    def do_split(self, op: Operation) -> None:
        (source,) = op.operands
        _, *rest = self.common([self.forms[source]], source)
        new = Place("r", len(rest))
        whole = self.held(source, compact((new, *rest)))
        cut = whole.layout[0]
        assert cut is not None
        for half, result in enumerate(op.results):
            part = Held(whole.name, whole.layout[1:], whole.base | half << cut.number)
            self.forms[result] = part if result.shape else Uniform(part.at(Loop(self.line, self.fresh), ()))


def _is_whole(value: Value) -> bool:
    scalar = value.scalar
    return isinstance(scalar, Pointer) or (isinstance(scalar, DType) and scalar.is_int())
