"""Products of blocks: tiles of both sides in threadgroup memory, sums in fp32 or int32."""

from __future__ import annotations

from patcher.tiles.on_metal.blocks import Blocks
from patcher.tiles.on_metal.core import THREADGROUP_BYTES
from patcher.tiles.on_metal.forms import Form, Held
from patcher.tiles.on_metal.layouts import Layout, bits_of, canonical, compact, filled, index_text
from patcher.tiles.on_metal.names import NotOnMetal, cast, size_of, type_name
from patcher.tiles.program import Operation, Value
from patcher.tiles.types import DType, float32, int32


class Dot(Blocks):
    """Matrix products."""

    def do_dot(self, op: Operation) -> None:
        (a, b, c), (result,) = op.operands, op.results
        rows, inner, columns = (bits_of(n) for n in (a.shape[-2], a.shape[-1], b.shape[-1]))
        batch = bits_of(a.type.numel) - rows - inner
        wide = int32 if a.number.is_int() else float32
        if wide is float32 and c.number.name not in ("fp16", "fp32"):
            raise NotOnMetal(f"a product that is added up in {c.number}")
        step = self.step(a, b, batch, rows, inner, columns)
        layout = self.canonical(result)
        total = self.declare(type_name(wide), layout)
        with self.each(layout) as loop:
            self.line(f"{total.at(loop, layout)} = 0;")
        sides = [self.whole(operand) for operand in (a, b)]
        for part in range(1 << (inner - step)):
            self.tile(sides, (a, b), (rows, inner, columns, step, batch), part, total, wide)
        start = self.settled(self.forms[c], c.scalar, layout)
        target = self.declare(type_name(result.scalar), layout)
        with self.each(layout) as loop:
            own = cast(start.at(loop, layout), c.scalar, wide, self.uses)
            added = cast(f"({own} + {total.at(loop, layout)})", wide, result.scalar, self.uses)
            self.line(f"{target.at(loop, layout)} = {added};")
        self.forms[result] = target

    def step(self, a: Value, b: Value, batch: int, rows: int, inner: int, columns: int) -> int:
        """log2 of the terms that go through threadgroup memory at a time."""
        for step in range(inner, -1, -1):
            if _tile_bytes(a, b, batch, rows, step, columns) <= THREADGROUP_BYTES:
                return step
        raise NotOnMetal(f"a product of {a.type} and {b.type} in {THREADGROUP_BYTES} bytes of threadgroup memory")

    def whole(self, value: Value) -> tuple[Form, Layout]:
        """An operand, and a layout in which threads have its elements."""
        form, bits = self.forms[value], bits_of(value.type.numel)
        if not isinstance(form, Held):
            return form, canonical(bits, self.thread_bits)
        return form, filled(compact(form.layout), self.thread_bits)

    def tile(
        self,
        sides: list[tuple[Form, Layout]],
        operands: tuple[Value, Value],
        sizes: tuple[int, int, int, int, int],
        part: int,
        total: Held,
        wide: DType,
    ) -> None:
        """Adds the products of some of the terms."""
        rows, inner, columns, step, batch = sizes
        a, b = operands
        left = self.shared_part(*sides[0], a, range(inner), step, part, 0)
        offset = -(-(size_of(a.scalar) << (batch + rows + step)) // 8) * 8
        right = self.shared_part(*sides[1], b, range(columns, columns + inner), step, part, offset)
        self.publish()
        layout = total.layout
        along, down, which = layout[:columns], layout[columns : columns + rows], layout[columns + rows :]
        with self.each(layout) as loop:
            first = index_text((*(None for _ in range(step)), *down, *which))
            second = index_text((*along, *(None for _ in range(step)), *which))
            self.line(f"const uint i = {first}, j = {second};")
            texts = [f"{left}[i + k]", f"{right}[j + (k << {columns})]"]
            x, y = (cast(text, v.scalar, wide, self.uses) for text, v in zip(texts, operands, strict=True))
            with self.braces(f"for (uint k = 0u; k < {1 << step}u; ++k)"):
                self.line(f"{total.at(loop, layout)} += {x} * {y};")

    def shared_part(
        self, form: Form, layout: Layout, value: Value, terms: range, step: int, part: int, offset: int
    ) -> str:
        """Writes the elements of one part of the terms to threadgroup memory."""
        kept = (*layout[: terms.start + step], *layout[terms.stop :])
        chosen = layout[terms.start + step : terms.stop]
        name = self.array(type_name(value.scalar), 1 << len(kept), size_of(value.scalar), offset)
        with self.each(layout, owned=True) as loop:
            condition = f"if ({index_text(chosen)} == {part}u) " if chosen else ""
            self.line(f"{condition}{name}[{index_text(kept)}] = {form.at(loop, layout)};")
        return name


def _tile_bytes(a: Value, b: Value, batch: int, rows: int, step: int, columns: int) -> int:
    left = -(-(size_of(a.scalar) << (batch + rows + step)) // 8) * 8
    return left + (size_of(b.scalar) << (batch + step + columns))
