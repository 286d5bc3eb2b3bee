"""Products of blocks by simdgroup matrices of 8 by 8: tiles of both sides in threadgroup memory, sums in registers."""

from __future__ import annotations

from dataclasses import dataclass

from patcher.tiles.on_metal.blocks import Blocks
from patcher.tiles.on_metal.core import SIMDGROUP_BITS, THREADGROUP_BYTES
from patcher.tiles.on_metal.forms import Form, Held
from patcher.tiles.on_metal.layouts import Layout, bits_of, canonical, compact, filled, index_text
from patcher.tiles.on_metal.names import size_of, type_name
from patcher.tiles.program import Operation, Value
from patcher.tiles.types import float32

MATRIX_BITS = 3
"""log2 of the rows of a simdgroup matrix."""

MOST_MATRICES = 64
"""Sums that a simdgroup holds."""


@dataclass(frozen=True)
class Product:
    """A product ``[batch, rows, inner] @ [batch, inner, columns]``; all numbers are log2 of extents.

    Attributes:
        step: terms that go through threadgroup memory at a time.
    """

    a: Value
    b: Value
    batch: int
    rows: int
    inner: int
    columns: int
    step: int

    @property
    def offset(self) -> int:
        """Bytes in threadgroup memory before the right side."""
        return -(-(size_of(self.a.scalar) << (self.batch + self.rows + self.step)) // 8) * 8

    @property
    def bytes(self) -> int:
        """Threadgroup memory for one step of both sides."""
        return self.offset + (size_of(self.b.scalar) << (self.batch + self.step + self.columns))

    @property
    def parts(self) -> range:
        """The steps."""
        return range(1 << (self.inner - self.step))

    @property
    def matrices(self) -> int:
        """log2 of the matrices of the result."""
        return self.batch + self.rows + self.columns - 2 * MATRIX_BITS


def product_of(op: Operation, step: int) -> Product:
    """A ``dot``, in steps of ``1 << step`` terms."""
    a, b, _ = op.operands
    rows, inner, columns = (bits_of(n) for n in (a.shape[-2], a.shape[-1], b.shape[-1]))
    return Product(a, b, bits_of(a.type.numel) - rows - inner, rows, inner, columns, step)


class Matrices(Blocks):
    """What both ways of multiplying have in common, and the one by simdgroup matrices."""

    def whole(self, value: Value) -> tuple[Form, Layout]:
        """An operand, and a layout in which threads have its elements."""
        form, bits = self.forms[value], bits_of(value.type.numel)
        if not isinstance(form, Held):
            return form, canonical(bits, self.thread_bits)
        return form, filled(compact(form.layout), self.thread_bits)

    def shared_parts(self, product: Product, part: int) -> tuple[str, str]:
        """Some terms of both sides in threadgroup memory: ``[batch, rows, step]`` and ``[batch, step, columns]``."""
        inner, columns = product.inner, product.columns
        left = self.shared_part(product.a, range(inner), product.step, part, 0)
        right = self.shared_part(product.b, range(columns, columns + inner), product.step, part, product.offset)
        self.publish()
        return left, right

    def shared_part(self, value: Value, terms: range, step: int, part: int, offset: int) -> str:
        """Writes the elements of one part of the terms; ``terms`` are the bits that count them."""
        form, layout = self.whole(value)
        kept = (*layout[: terms.start + step], *layout[terms.stop :])
        chosen = layout[terms.start + step : terms.stop]
        name = self.array(type_name(value.scalar), 1 << len(kept), size_of(value.scalar), offset)
        with self.each(layout, owned=True) as loop:
            condition = f"if ({index_text(chosen)} == {part}u) " if chosen else ""
            self.line(f"{condition}{name}[{index_text(kept)}] = {form.at(loop, layout)};")
        return name

    def goes_in_matrices(self, product: Product) -> bool:
        """Whether simdgroup matrices can do it."""
        small = min(product.rows, product.step, product.columns) < MATRIX_BITS
        per_simdgroup = (1 << product.matrices) >> (self.thread_bits - SIMDGROUP_BITS) if not small else 0
        floats = product.a.number.name in ("fp16", "bf16", "fp32") and product.a.number == product.b.number
        return not small and floats and per_simdgroup <= MOST_MATRICES

    def in_matrices(self, product: Product, result: Value) -> Held:
        """The sums, in the usual layout of the result."""
        groups = 1 << (self.thread_bits - SIMDGROUP_BITS)
        count = max(1, (1 << product.matrices) // groups)
        sums = self.fresh("z")
        self.line(f"simdgroup_float8x8 {sums}[{count}];")
        with self.braces(f"for (uint p = 0u; p < {count}u; ++p)"):
            self.line(f"{sums}[p] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);")
        idle = groups > 1 << product.matrices
        for part in product.parts:
            left, right = self.shared_parts(product, part)
            head = f"if ((t >> 5) < {1 << product.matrices}u) " if idle else ""
            with self.braces(f"{head}for (uint p = 0u; p < {count}u; ++p)"):
                self.line(f"const uint tile = (t >> 5) + {groups}u * p;")
                self.multiplied(product, left, right, f"{sums}[p]")
        return self.spread(product, result, sums, groups, count)

    def multiplied(self, product: Product, left: str, right: str, total: str) -> None:
        """Adds the products of one step to one matrix."""
        across, kind = product.columns - MATRIX_BITS, type_name(product.a.scalar)
        which = f"(tile >> {product.rows + product.columns - 2 * MATRIX_BITS})"
        self.line(f"const uint i = (tile >> {across}) << {product.step + MATRIX_BITS};")
        column = f"((tile & {(1 << across) - 1}u) << {MATRIX_BITS})"
        self.line(f"const uint j = ({which} << {product.step + product.columns}) + {column};")
        with self.braces(f"for (uint k = 0u; k < {1 << product.step}u; k += 8u)"):
            self.line(f"simdgroup_matrix<{kind}, 8, 8> x, y;")
            self.line(f"simdgroup_load(x, {left} + (i + k), {1 << product.step});")
            self.line(f"simdgroup_load(y, {right} + (j + (k << {product.columns})), {1 << product.columns});")
            self.line(f"simdgroup_multiply_accumulate({total}, x, y, {total});")

    def spread(self, product: Product, result: Value, sums: str, groups: int, count: int) -> Held:
        """Hands out the matrices' elements through threadgroup memory, as many at a time as go into it."""
        at_once = min(count, THREADGROUP_BYTES // (256 * groups))
        layout, kept = self.canonical(result), bits_of(at_once * groups) + 2 * MATRIX_BITS
        places = _by_matrix(product, layout)
        target = self.declare(type_name(float32), layout)
        for first in range(0, count, at_once):
            name = self.array("float", at_once * groups * 64, 4)
            with self.braces(f"for (uint p = 0u; p < {at_once}u; ++p)"):
                matrix = f"{sums}[{first}u + p]" if first else f"{sums}[p]"
                self.line(f"simdgroup_store({matrix}, {name} + 64u * ((t >> 5) + {groups}u * p), 8);")
            self.publish()
            with self.each(layout) as loop:
                rest = places[kept:]
                condition = f"if ({index_text(rest)} == {first // at_once}u) " if rest else ""
                self.line(f"{condition}{target.at(loop, layout)} = {name}[{index_text(places[:kept])}];")
        return target


def _by_matrix(product: Product, layout: Layout) -> Layout:
    """The places of the result's bits: column and row within a matrix, column and row of matrices, batch."""
    columns, rows = layout[: product.columns], layout[product.columns : product.columns + product.rows]
    inside = (*columns[:MATRIX_BITS], *rows[:MATRIX_BITS])
    return (*inside, *columns[MATRIX_BITS:], *rows[MATRIX_BITS:], *layout[product.columns + product.rows :])
