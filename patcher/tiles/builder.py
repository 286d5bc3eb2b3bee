"""Appends typed operations to a program: operands are brought to one type and shape by Triton's rules.

Operands are values, or Python numbers, which are constants of the program. A TypeError or ValueError says what does not
fit; the front end adds the place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from patcher.tiles import types
from patcher.tiles.program import Operation, Sequence, Value
from patcher.tiles.types import DType, Pointer, Scalar, Shape, Type, block, broadcast_shapes, promote

Number: TypeAlias = "bool | int | float"
Operand: TypeAlias = "Value | Number"


class Builder:
    """Writes into one sequence at a time.

    Attributes:
        sequence: where operations go.
        line: ``file:line`` that they are given.
        call: how a device function is called, set by the front end: function and arguments to its result.
    """

    def __init__(self) -> None:
        self.sequence = Sequence()
        self.line = ""
        self.call: Callable[..., Any] = _no_calls

    @contextmanager
    def inside(self, sequence: Sequence) -> Iterator[Sequence]:
        """Operations go into ``sequence`` meanwhile."""
        outer, self.sequence = self.sequence, sequence
        try:
            yield sequence
        finally:
            self.sequence = outer

    def operation(
        self,
        kind: str,
        operands: tuple[Value, ...] = (),
        results: tuple[Type, ...] = (),
        blocks: tuple[Sequence, ...] = (),
        **attributes: Any,
    ) -> tuple[Value, ...]:
        """Appends one operation; gives its results, of the types ``results``."""
        values = tuple(Value(type) for type in results)
        self.sequence.operations.append(Operation(kind, operands, values, attributes, blocks, self.line))
        return values

    def value(self, kind: str, operands: tuple[Value, ...], result: Type, **attributes: Any) -> Value:
        """Appends an operation with one result."""
        return self.operation(kind, operands, (result,), **attributes)[0]

    def map(self, fn: str, *operands: Value, scalar: Scalar | None = None) -> Value:
        """Elementwise on operands of one shape; the result has the first one's scalar type, or ``scalar``."""
        return self.value("map", operands, block(scalar or operands[0].scalar, operands[0].shape), fn=fn)

    # -- numbers and types -----------------------------------------------------------------------------------------

    def constant(self, number: Number, dtype: DType) -> Value:
        """A number as a value of ``dtype``. Raises ValueError where the type cannot hold it."""
        if dtype.is_floating():
            return self.value("constant", (), dtype, value=float(number))
        if isinstance(number, float):
            if number != int(number) if math.isfinite(number) else True:
                raise ValueError(f"{number} is no {dtype}")
            number = int(number)
        if dtype.is_int1():
            return self.value("constant", (), dtype, value=bool(number))
        if not dtype.get_int_min_value() <= number <= dtype.get_int_max_value():
            raise ValueError(f"the number {number} is out of range for {dtype}")
        return self.value("constant", (), dtype, value=int(number))

    def tensor(self, operand: Any, dtype: DType | None = None) -> Value:
        """A value as it is; a number as a value of ``dtype``, or of the type that it takes alone."""
        if isinstance(operand, Value):
            return operand
        if not isinstance(operand, (bool, int, float)):
            raise TypeError(f"a tensor or a number is needed here, and this is {operand!r}")
        return self.constant(operand, dtype or types.type_of_number(operand))

    def cast(self, operand: Operand, scalar: Scalar, rounding: str | None = None) -> Value:
        """The same numbers as another scalar type."""
        if not isinstance(operand, Value):
            operand = self.tensor(operand)
        if operand.scalar == scalar:
            return operand
        pointers = [isinstance(kind, Pointer) for kind in (operand.scalar, scalar)]
        if any(pointers) and not all(pointers):
            number = scalar if pointers[0] else operand.scalar
            if not (isinstance(number, DType) and number.is_int() and number.primitive_bitwidth in (1, 64)):
                raise TypeError(f"a {operand.scalar} cannot be cast to {scalar}")
        attributes = {"rounding": rounding} if rounding else {}
        return self.value("cast", (operand,), block(scalar, operand.shape), **attributes)

    def bitcast(self, operand: Operand, scalar: Scalar) -> Value:
        """The same bits as another scalar type of the same width."""
        operand = self.tensor(operand)
        if operand.scalar == scalar:
            return operand
        if operand.scalar.primitive_bitwidth != scalar.primitive_bitwidth:
            raise TypeError(f"a bitcast from {operand.scalar} to {scalar} changes the width")
        return self.value("bitcast", (operand,), block(scalar, operand.shape))

    def broadcast(self, operand: Operand, shape: Shape) -> Value:
        """The value repeated along extents of 1, or a scalar, to ``shape``."""
        operand = self.tensor(operand)
        if operand.shape == shape:
            return operand
        if broadcast_shapes(operand.shape, shape) != shape:
            raise TypeError(f"a block of {list(operand.shape)} does not go into {list(shape)}")
        if operand.shape and len(operand.shape) < len(shape):
            operand = self.reshape(operand, (1,) * (len(shape) - len(operand.shape)) + operand.shape)
            if operand.shape == shape:
                return operand
        return self.value("broadcast", (operand,), block(operand.scalar, shape))

    def reshape(self, operand: Value, shape: Shape) -> Value:
        """The elements in row-major order in another shape. ``()`` takes the only element out."""
        if operand.shape == shape:
            return operand
        if math.prod(operand.shape) != math.prod(shape):
            raise TypeError(f"{list(operand.shape)} and {list(shape)} have different numbers of elements")
        return self.value("reshape", (operand,), block(operand.scalar, shape))

    # -- operands of one type and shape ----------------------------------------------------------------------------

    def alike(self, *operands: Operand) -> tuple[Value, ...]:
        """All operands in the shape that they have together."""
        values = [self.tensor(operand) for operand in operands]
        shape: Shape = ()
        for value in values:
            shape = broadcast_shapes(shape, value.shape)
        return tuple(self.broadcast(value, shape) for value in values)

    def pair(self, a: Operand, b: Operand, dividing: bool = False) -> tuple[Value, Value]:
        """Both operands in the type and shape in which ``a op b`` is computed."""
        kinds = [x.number if isinstance(x, Value) else types.type_of_number(x) for x in (a, b)]
        dtype = promote(kinds[0], not isinstance(a, Value), kinds[1], not isinstance(b, Value), dividing)
        left, right = self.alike(self.numeric(a, dtype), self.numeric(b, dtype))
        return left, right

    def numeric(self, operand: Operand, dtype: DType) -> Value:
        """An operand in the type of a computation; a number becomes a constant of that type."""
        return self.cast(operand, dtype) if isinstance(operand, Value) else self.constant(operand, dtype)

    def common(self, *operands: Operand) -> tuple[Value, ...]:
        """All operands in one type and shape: tensors among themselves first, then the numbers."""
        tensors = [x.number for x in operands if isinstance(x, Value)]
        numbers = [types.type_of_number(x) for x in operands if not isinstance(x, Value)]
        tensor, number = (_joined(kinds) for kinds in (tensors, numbers))
        dtype = tensor or number or types.float32
        if tensor and number:
            dtype = promote(tensor, False, number, True)
        return self.alike(*(self.numeric(operand, dtype) for operand in operands))

    # -- operators -------------------------------------------------------------------------------------------------

    def add(self, a: Operand, b: Operand) -> Value:
        """``a + b``; one of them may be a pointer."""
        if _is_pointer(b):
            a, b = b, a
        if _is_pointer(a):
            return self.offset(a, b)
        return self.map("add", *self.pair(a, b))

    def sub(self, a: Operand, b: Operand) -> Value:
        """``a - b``; ``a`` may be a pointer."""
        if _is_pointer(a):
            return self.offset(a, self.neg(b))
        return self.map("sub", *self.pair(a, b))

    def offset(self, pointer: Operand, count: Operand) -> Value:
        """The pointer ``count`` elements further."""
        if _is_pointer(count):
            raise TypeError("two pointers cannot be added")
        pointer, steps = self.alike(pointer, count)
        if not steps.number.is_int():
            raise TypeError(f"a pointer moves by whole elements, and this is a {steps.type}")
        return self.value("offset", (pointer, steps), pointer.type)

    def mul(self, a: Operand, b: Operand) -> Value:
        """``a * b``."""
        return self.map("mul", *self.pair(a, b))

    def truediv(self, a: Operand, b: Operand) -> Value:
        """``a / b``, in fp32 at least."""
        left, right = self.pair(a, b, dividing=True)
        if left.number.is_int():
            left, right = self.cast(left, types.float32), self.cast(right, types.float32)
        return self.map("div", left, right)

    def floordiv(self, a: Operand, b: Operand) -> Value:
        """``a // b`` of integers, truncated as in C."""
        left, right = self.pair(a, b, dividing=True)
        if not left.number.is_int():
            raise TypeError(f"// is for integers, and this is {left.type}")
        return self.map("idiv", left, right)

    def mod(self, a: Operand, b: Operand) -> Value:
        """``a % b`` with the sign of ``a``, as in C."""
        left, right = self.pair(a, b, dividing=True)
        return self.map("rem", left, right)

    def bits(self, fn: str, a: Operand, b: Operand) -> Value:
        """``and``, ``or``, ``xor``, ``shl``; ``shr`` keeps the sign of a signed left side."""
        left, right = self.pair(a, b)
        if not left.number.is_int():
            raise TypeError(f"invalid operands of type {left.type} and {right.type}: {fn} is for integers")
        if fn == "shr" and isinstance(a, Value) and a.number.is_int_signed() and left.number.is_int_unsigned():
            signed = DType(left.number.name.removeprefix("u"))
            shifted = self.map(fn, self.bitcast(left, signed), self.bitcast(right, signed))
            return self.bitcast(shifted, left.number)
        return self.map(fn, left, right)

    def compare(self, fn: str, a: Operand, b: Operand) -> Value:
        """``lt``, ``le``, ``gt``, ``ge``, ``eq`` or ``ne``: int1. Pointers are compared by address."""
        if _is_pointer(a) or _is_pointer(b):
            a, b = self.cast(a, types.int64), self.cast(b, types.int64)
        return self.map(fn, *self.pair(a, b), scalar=types.int1)

    def neg(self, a: Operand) -> Value:
        """``-a``."""
        value = self.tensor(a)
        return self.map("neg", value) if value.number.is_floating() else self.sub(0, value)

    def invert(self, a: Operand) -> Value:
        """``~a``, the other bits."""
        value = self.tensor(a)
        if not value.number.is_int():
            raise TypeError(f"~ is for integers, and this is {value.type}")
        return self.map("not", value)

    def truth(self, a: Operand) -> Value:
        """Whether ``a`` is not 0: int1."""
        return self.cast(self.tensor(a), types.int1)

    def where(self, condition: Operand, x: Operand, y: Operand) -> Value:
        """``x`` where the condition holds, ``y`` elsewhere, in one type and shape."""
        if not (_is_pointer(x) or _is_pointer(y)):
            x, y = self.pair(x, y)
        elif self.tensor(x).scalar != self.tensor(y).scalar:
            raise TypeError(f"where cannot choose between {self.tensor(x).type} and {self.tensor(y).type}")
        test, left, right = self.alike(self.truth(condition), x, y)
        return self.map("where", test, left, right, scalar=left.scalar)


def _joined(kinds: list[DType]) -> DType | None:
    joined = kinds[0] if kinds else None
    for kind in kinds[1:]:
        assert joined is not None
        joined = promote(joined, False, kind, False)
    return joined


def _is_pointer(operand: Operand) -> bool:
    return isinstance(operand, Value) and isinstance(operand.scalar, Pointer)


def _no_calls(*_: Any) -> Any:
    raise TypeError("no function can be called here")
