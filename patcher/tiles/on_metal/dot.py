"""Matrix products, added up in fp32 or int32: by simdgroup matrices where shapes allow, element by element else."""

from __future__ import annotations

from patcher.tiles.on_metal.core import THREADGROUP_BYTES
from patcher.tiles.on_metal.forms import Held
from patcher.tiles.on_metal.layouts import bits_of, index_text
from patcher.tiles.on_metal.matrices import Matrices, Product, product_of
from patcher.tiles.on_metal.names import NotOnMetal, cast, type_name
from patcher.tiles.program import Operation, Value
from patcher.tiles.types import DType, float32, int32


class Dot(Matrices):
    """Products and sums."""

    def do_dot(self, op: Operation) -> None:
        (a, _, c), (result,) = op.operands, op.results
        wide = int32 if a.number.is_int() else float32
        if wide is float32 and c.number.name not in ("fp16", "fp32"):
            raise NotOnMetal(f"a product that is added up in {c.number}")
        product = largest_step(op)
        multiply = self.in_matrices if self.goes_in_matrices(product) else self.one_by_one
        total = multiply(product, result)
        start = self.settled(self.forms[c], c.scalar, total.layout)
        target = self.declare(type_name(result.scalar), total.layout)
        with self.each(total.layout) as loop:
            own = cast(start.at(loop, total.layout), c.scalar, wide, self.uses)
            added = cast(f"({own} + {total.at(loop, total.layout)})", wide, result.scalar, self.uses)
            self.line(f"{target.at(loop, total.layout)} = {added};")
        self.forms[result] = target

    def one_by_one(self, product: Product, result: Value) -> Held:
        """Every thread adds up the products for its own elements."""
        wide = int32 if product.a.number.is_int() else float32
        total = self.declare(type_name(wide), self.canonical(result))
        with self.each(total.layout) as loop:
            self.line(f"{total.at(loop, total.layout)} = 0;")
        for part in product.parts:
            self.added(product, total, self.shared_parts(product, part), wide)
        return total

    def added(self, product: Product, total: Held, names: tuple[str, str], wide: DType) -> None:
        """Adds the products of one step."""
        columns, step, layout = product.columns, product.step, total.layout
        along, down, which = (
            layout[:columns],
            layout[columns : columns + product.rows],
            layout[columns + product.rows :],
        )
        skipped = (None,) * step
        with self.each(layout) as loop:
            first, second = index_text((*skipped, *down, *which)), index_text((*along, *skipped, *which))
            self.line(f"const uint i = {first}, j = {second};")
            texts = (f"{names[0]}[i + k]", f"{names[1]}[j + (k << {columns})]")
            sides = zip(texts, (product.a, product.b), strict=True)
            x, y = (cast(text, value.scalar, wide, self.uses) for text, value in sides)
            with self.braces(f"for (uint k = 0u; k < {1 << step}u; ++k)"):
                self.line(f"{total.at(loop, layout)} += {x} * {y};")


def largest_step(op: Operation) -> Product:
    """The product, with as many terms at a time as threadgroup memory has room for. Raises NotOnMetal if none."""
    a, b, _ = op.operands
    for step in range(bits_of(a.shape[-1]), -1, -1):
        product = product_of(op, step)
        if product.bytes <= THREADGROUP_BYTES:
            return product
    raise NotOnMetal(f"a product of {a.type} and {b.type} in {THREADGROUP_BYTES} bytes of threadgroup memory")
