"""A typed block program: what a kernel computes, in few kinds of operations, for any back end to run.

Values are assigned once. Control flow is structured: an operation that branches or repeats holds blocks, and each block
ends with the values that it hands out, or with none where it returns from the function.

Operations (operands -> results; attributes in braces):

======================================  =============================================================================
constant {value}                        a number, of the result's type
program_id, num_programs {axis}         int32
arange {start, stop}                    int32[stop - start]
map {fn} (x, ...)                       elementwise, all operands of one shape; ``fn`` is one of `MAPS`
cast (x)                                to the result's scalar type; {rounding}: "rtne" or "rtz"
bitcast (x)                             the same bits in another type of the same width
broadcast, reshape (x)                  to the result's shape; broadcast of a scalar fills the block
permute {order} (x)                     axes in a new order
join (x, y), split (x)                  two blocks to one with a new last axis of 2, and back
cat {axis} (x, y)                       one after the other along the axis
gather {axis} (x, index)                ``x[..., index[...], ...]`` along the axis
flip {axis}, sort {axis, descending}    along the axis
histogram (x[, mask])                   int32 counts of 0 .. extent - 1
offset (pointer, n)                     the pointer n elements further
load (pointer[, mask[, other]])         masked-off elements are ``other``, or 0
store (pointer, value[, mask])
atomic {fn} (pointer, value[, mask])    the values before; "add", "max", "min", "and", "or", "xor", "xchg"
cas (pointer, compare, value)           the values before
dot (a, b, c)                           ``c + a @ b``, accumulated in the type of c
reduce {axis} (x, ...) [combine]        along the axis; the block combines one element of each side into one
scan {axis, reverse} (x, ...) [combine] running results of the same
elementwise (x, ...) [function]         what the block gives for the elements at each place; of one axis
if (condition) [then, else]             hands out what the branch taken does
for {down} (start, stop, step, init...) [body]
                                        body takes the index and what the last turn handed out; counts down if said so
while (init...) [test, body]            test hands out the condition
call [body]                             a device function that returns early
return (value...)                       ends the call, or the kernel, for programs that come here
assert {message} (condition), print {text} (x, ...)
======================================  =============================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from patcher.tiles.types import DType, Scalar, Shape, Type

MAPS: dict[str, int] = {
    **dict.fromkeys(("neg", "abs", "not"), 1),
    **dict.fromkeys(("exp", "exp2", "exp10", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt"), 1),
    **dict.fromkeys(
        ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh"), 1
    ),
    **dict.fromkeys(("erf", "erfc", "erfinv", "lgamma", "floor", "ceil", "trunc", "rint", "round"), 1),
    **dict.fromkeys(("bessel_i0", "bessel_i1", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1"), 1),
    **dict.fromkeys(("isnan", "isinf", "isfinite", "signbit"), 1),
    **dict.fromkeys(("add", "sub", "mul", "div", "idiv", "rem", "umulhi", "pow", "atan2", "hypot", "copysign"), 2),
    **dict.fromkeys(("min", "max", "minnan", "maxnan", "and", "or", "xor", "shl", "shr"), 2),
    **dict.fromkeys(("lt", "le", "gt", "ge", "eq", "ne"), 2),
    **dict.fromkeys(("where", "fma"), 3),
}
"""Elementwise functions, with the number of their operands, which are of one type but for ``where``'s condition.

Integers wrap; ``idiv`` and ``rem`` truncate as in C, ``rem`` of floats too; ``shr`` keeps the sign of signed integers.
``min`` and ``max`` give the number where one side is NaN, ``minnan`` and ``maxnan`` NaN. ``rint`` rounds to even,
``round`` away from zero. ``umulhi`` is the upper half of an unsigned product. Comparisons and tests give int1.
Arithmetic in fp16 and bf16 is that of fp32, rounded to nearest even after each operation; ``fma`` rounds once.
"""


class Value:
    """One value of a program: assigned once, of one type. Compared by identity."""

    __slots__ = ("type",)

    def __init__(self, type: Type) -> None:
        self.type = type

    @property
    def scalar(self) -> Scalar:
        """The type of an element."""
        scalar: Scalar = self.type.scalar
        return scalar

    @property
    def shape(self) -> Shape:
        """The block's shape; ``()`` for a scalar."""
        return self.type.shape

    @property
    def number(self) -> DType:
        """The type of an element that is a number. Raises TypeError for pointers."""
        if not isinstance(self.scalar, DType):
            raise TypeError(f"a number is needed here, and this is a {self.type}")
        return self.scalar


@dataclass(eq=False)
class Operation:
    """One operation; ``line`` is that of the kernel's source file."""

    kind: str
    operands: tuple[Value, ...]
    results: tuple[Value, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    blocks: tuple[Sequence, ...] = ()
    line: str = ""


@dataclass(eq=False)
class Sequence:
    """Operations in order, the values that they take as parameters, and those that they hand out.

    ``results`` is None where every program that comes here has returned from the function.
    """

    parameters: tuple[Value, ...] = ()
    operations: list[Operation] = field(default_factory=list)
    results: tuple[Value, ...] | None = ()


@dataclass(eq=False)
class Program:
    """A kernel for arguments of certain types.

    Attributes:
        name: the kernel's, with its module.
        place: ``file:line`` of its definition.
        arguments: names and values of what is passed at a launch; constants are no longer among them.
    """

    name: str
    place: str
    arguments: tuple[tuple[str, Value], ...]
    body: Sequence

    def __str__(self) -> str:
        return "\n".join(_Printer().program(self))

    def operations(self) -> Iterator[Operation]:
        """Every operation, at any depth."""
        yield from operations(self.body)


def operations(sequence: Sequence) -> Iterator[Operation]:
    """Every operation in ``sequence`` and in the blocks of its operations."""
    for operation in sequence.operations:
        yield operation
        for inner in operation.blocks:
            yield from operations(inner)


class _Printer:
    """Numbers values in the order in which they are met."""

    def __init__(self) -> None:
        self.names: dict[Value, str] = {}

    def name(self, value: Value) -> str:
        return self.names.setdefault(value, f"%{len(self.names)}")

    def program(self, program: Program) -> Iterator[str]:
        self.names = {value: f"%{name}" for name, value in program.arguments}
        head = ", ".join(f"%{name}: {value.type}" for name, value in program.arguments)
        yield f"kernel {program.name}({head}) {{  # {program.place}"
        yield from self.sequence(program.body, "  ")
        yield "}"

    def sequence(self, sequence: Sequence, indent: str) -> Iterator[str]:
        for operation in sequence.operations:
            yield from self.operation(operation, indent)
        if sequence.results:
            yield f"{indent}yield {', '.join(map(self.name, sequence.results))}"

    def operation(self, operation: Operation, indent: str) -> Iterator[str]:
        kind = operation.attributes.get("fn", "") if operation.kind == "map" else operation.kind
        rest = {k: v for k, v in operation.attributes.items() if (operation.kind, k) != ("map", "fn")}
        attributes = " {" + ", ".join(f"{k}={v!r}" for k, v in rest.items()) + "}" if rest else ""
        operands = " " + ", ".join(map(self.name, operation.operands)) if operation.operands else ""
        results = ", ".join(map(self.name, operation.results))
        types = ": " + ", ".join(str(value.type) for value in operation.results) if operation.results else ""
        opening = " {" if operation.blocks else ""
        yield f"{indent}{results + ' = ' if results else ''}{kind}{attributes}{operands}{types}{opening}"
        for number, inner in enumerate(operation.blocks):
            if number:
                yield f"{indent}}} {{"
            if inner.parameters:
                yield f"{indent}  take {', '.join(map(self.name, inner.parameters))}"
            yield from self.sequence(inner, indent + "  ")
        if operation.blocks:
            yield f"{indent}}}"
