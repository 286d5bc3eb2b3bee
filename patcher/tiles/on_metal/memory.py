"""Loads, stores and atomic operations. No thread touches an address that is masked off."""

from __future__ import annotations

from collections.abc import Callable

from patcher.tiles.on_metal.core import Access
from patcher.tiles.on_metal.forms import Form, Held, Loop, Uniform
from patcher.tiles.on_metal.layouts import Layout, bits_of, index_text, registers, spare_mask
from patcher.tiles.on_metal.names import NotOnMetal, constant, stored_name, type_name
from patcher.tiles.on_metal.values import Values
from patcher.tiles.program import Operation, Value
from patcher.tiles.types import DType, Scalar


class Memory(Values):
    """Operations on device memory."""

    def note(self, kind: str, pointer: Value, layout: Layout) -> None:
        """Orders an access after those that it may clash with."""
        alone = not spare_mask(layout, self.thread_bits) and pointer in self.numbering.distinct
        self.touch(Access(kind, self.aliases.of(pointer), self.numbering.first(pointer), layout, alone))

    def operands(self, op: Operation, layout: Layout) -> list[Form]:
        """What an operation takes, where ``layout`` wants it."""
        return [self.settled(self.forms[operand], operand.scalar, layout) for operand in op.operands]

    def do_load(self, op: Operation) -> None:
        (result,), pointer = op.results, op.operands[0]
        layout = self.common([self.forms[operand] for operand in op.operands], result)
        forms, kind = self.operands(op, layout), type_name(result.scalar)
        self.note("r", pointer, layout)
        target = self.declare(kind, layout)
        alone = not result.shape and self.aliases.writable(pointer)
        with self.each(layout, owned=alone) as loop:
            self.line(f"{target.at(loop, layout)} = {self.loaded(op, forms, loop, layout)};")
        if alone:  # another program may write meanwhile, and all threads must go one way
            self.forms[result] = self.told(target, result)
        else:
            self.forms[result] = target if result.shape else Uniform(f"{target.name}[0]")

    def loaded(self, op: Operation, forms: list[Form], loop: Loop, layout: Layout) -> str:
        """The element that is read, or what stands for it where it is masked off."""
        scalar = op.results[0].scalar
        assert isinstance(scalar, DType)
        texts = [form.at(loop, layout) for form in forms]
        read = f"(*{texts[0]} != 0)" if scalar.is_int1() else f"*{texts[0]}"
        if len(texts) == 1:
            return read
        return f"{texts[1]} ? {read} : {texts[2] if len(texts) > 2 else constant(0, scalar)}"

    def do_store(self, op: Operation) -> None:
        pointer, value = op.operands[:2]
        layout = self.common([self.forms[operand] for operand in op.operands], pointer)
        usual = self.canonical(pointer)
        layout = usual if registers(layout) > registers(usual) else layout
        forms = self.operands(op, layout)
        self.note("w", pointer, layout)
        with self.each(layout, owned=True) as loop:
            mask = f"if ({forms[2].at(loop, layout)}) " if len(forms) > 2 else ""
            place, written = forms[0].at(loop, layout), forms[1].at(loop, layout)
            self.line(f"{mask}*{place} = {self.to_memory(written, value.scalar)};")

    def to_memory(self, text: str, scalar: Scalar) -> str:
        """A number as it is stored."""
        return f"uchar({text})" if stored_name(scalar) != type_name(scalar) else text

    # -- atomic operations -----------------------------------------------------------------------------------------

    def do_atomic(self, op: Operation) -> None:
        scalar, fn = op.operands[1].scalar, op.attributes["fn"]
        self.change(op, lambda place, texts: self.atomic(fn, scalar, place, texts[0]), has_mask=True)

    def do_cas(self, op: Operation) -> None:
        scalar = _word(op.operands[1].scalar)
        if scalar.is_floating():
            raise NotOnMetal(f"atomic_cas of {scalar}")
        self.uses("compare_exchange")

        def change(place: str, texts: list[str]) -> str:
            words = ", ".join(f"uint({text})" for text in texts)
            return f"{type_name(scalar)}(compare_exchange((device atomic_uint*){place}, {words}))"

        self.change(op, change, has_mask=False)

    def change(self, op: Operation, build: Callable[[str, list[str]], str], has_mask: bool) -> None:
        """Runs an atomic operation for each element, by one thread each, and tells all threads what stood there."""
        (result,), pointer = op.results, op.operands[0]
        scalar = _word(result.scalar)
        layout = self.common([self.forms[operand] for operand in op.operands], result)
        usual = self.canonical(result)
        layout = usual if registers(layout) > registers(usual) else layout
        forms = self.operands(op, layout)
        self.note("a", pointer, layout)
        masked = has_mask and len(forms) > 2
        before = self.declare(type_name(scalar), layout)
        with self.each(layout, owned=True) as loop:
            place, *texts = [form.at(loop, layout) for form in forms]
            mask = f"if ({texts.pop()}) " if masked else ""
            if mask:
                self.line(f"{before.at(loop, layout)} = {constant(0, scalar)};")
            self.line(f"{mask}{before.at(loop, layout)} = {build(place, texts)};")
        if result in self.needed:
            self.forms[result] = self.told(before, result)

    needed: frozenset[Value] = frozenset()

    def told(self, before: Held, result: Value) -> Form:
        """What the threads that have the elements know, for all."""
        name = self.shared_block(before, result.scalar, bits_of(result.type.numel))
        self.publish()
        known = self.declare(type_name(result.scalar), before.layout)
        with self.each(before.layout) as loop:
            self.line(f"{known.at(loop, before.layout)} = {name}[{index_text(before.layout)}];")
        return known if result.shape else Uniform(f"{known.name}[0]")

    def atomic(self, fn: str, scalar: Scalar, place: str, text: str) -> str:
        """One atomic operation on 32 bits: what stood there."""
        dtype = _word(scalar)
        kind = type_name(dtype)
        name = {"xchg": "exchange"}.get(fn, f"fetch_{fn}")
        if not dtype.is_floating() or fn in ("add", "xchg"):
            return f"atomic_{name}_explicit((device atomic_{kind}*){place}, {text}, memory_order_relaxed)"
        helper = f"atomic_{fn}_float"
        self.uses(helper)
        self.uses("compare_exchange")
        return f"{helper}((device atomic_uint*){place}, {text})"


def _word(scalar: Scalar) -> DType:
    """A type of which Metal has atomic operations. Raises NotOnMetal for another."""
    if not isinstance(scalar, DType) or scalar.name not in ("int32", "uint32", "fp32"):
        raise NotOnMetal(f"atomic operations on {scalar}")
    return scalar
