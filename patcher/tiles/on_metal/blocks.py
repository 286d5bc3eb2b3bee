"""Blocks whose elements are taken from other places, through threadgroup memory."""

from __future__ import annotations

from patcher.tiles.on_metal.layouts import Layout, axis_bits, bits_of, index_text
from patcher.tiles.on_metal.names import type_name
from patcher.tiles.on_metal.reductions import Reductions
from patcher.tiles.program import Operation


class Blocks(Reductions):
    """Gathering, reversing, counting."""

    def do_gather(self, op: Operation) -> None:
        (source, index), (result,), axis = op.operands, op.results, op.attributes["axis"]
        layout = self.common([self.forms[index]], result)
        own, others = axis_bits(source.shape, axis), axis_bits(index.shape, axis)
        rest: Layout = (*layout[: own.start], *(None for _ in own), *layout[others.stop :])
        place = self.settled(self.forms[index], index.scalar, layout)
        name = self.shared_block(self.forms[source], source.scalar, bits_of(source.type.numel))
        self.publish()
        target = self.declare(type_name(result.scalar), layout)
        with self.each(layout) as loop:
            along = f"((uint({place.at(loop, layout)}) & {source.shape[axis] - 1}u) << {own.start})"
            self.line(f"{target.at(loop, layout)} = {name}[{index_text(rest)} | {along}];")
        self.forms[result] = target

    def do_flip(self, op: Operation) -> None:
        (source,), (result,) = op.operands, op.results
        layout = self.canonical(result)
        name = self.shared_block(self.forms[source], source.scalar, bits_of(source.type.numel))
        self.publish()
        mask = sum(1 << bit for bit in axis_bits(source.shape, op.attributes["axis"]))
        target = self.declare(type_name(result.scalar), layout)
        with self.each(layout) as loop:
            self.line(f"{target.at(loop, layout)} = {name}[{index_text(layout)} ^ {mask}u];")
        self.forms[result] = target

    def do_histogram(self, op: Operation) -> None:
        (source, *masks), (result,) = op.operands, op.results
        counts, bins = self.canonical(result), result.shape[0]
        layout = self.common([self.forms[operand] for operand in op.operands], source)
        forms = [self.settled(self.forms[v], v.scalar, layout) for v in op.operands]
        name = self.array("int", bins, 4)
        with self.each(counts, owned=True):
            self.line(f"{name}[{index_text(counts)}] = 0;")
        self.barrier()
        with self.each(layout, owned=True) as loop:
            texts = [form.at(loop, layout) for form in forms]
            hit = " && ".join([f"ulong({texts[0]}) < {bins}ul", *texts[1:]])
            place = f"(threadgroup atomic_int*)({name} + uint({texts[0]}))"
            self.line(f"if ({hit}) atomic_fetch_add_explicit({place}, 1, memory_order_relaxed);")
        self.publish()
        target = self.declare("int", counts)
        with self.each(counts) as loop:
            self.line(f"{target.at(loop, counts)} = {name}[{index_text(counts)}];")
        self.forms[result] = target
        assert len(masks) < 2
