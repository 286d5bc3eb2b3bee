"""Reductions and scans along an axis, with a function of the kernel that combines two elements, or a known one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from patcher.tiles import types
from patcher.tiles.builder import Builder
from patcher.tiles.library.elementwise import maximum, minimum
from patcher.tiles.library.registry import axis_of, function
from patcher.tiles.library.shapes import arange, expand_dims, ravel
from patcher.tiles.program import Sequence, Value
from patcher.tiles.types import DType, block

Combine = Callable[..., Any]


def _combining(b: Builder, values: tuple[Value, ...], combine: Combine) -> Sequence:
    sides = tuple(Value(value.scalar) for value in (*values, *values))
    with b.inside(Sequence(sides)) as sequence:
        combined = combine(*sides)
        combined = combined if isinstance(combined, tuple) else (combined,)
        if len(combined) != len(values):
            raise TypeError(f"the combining function gives {len(combined)} values for {len(values)}")
        sequence.results = tuple(b.cast(one, value.scalar) for one, value in zip(combined, values, strict=True))
    return sequence


def _along(b: Builder, values: tuple[Value, ...], axis: int | None, keep_dims: bool, combine: Combine) -> Any:
    rank = len(values[0].shape)
    if axis is None:
        values, position = tuple(ravel(b, value) for value in values), 0
    else:
        position = axis_of(axis, rank)
    shape = values[0].shape[:position] + values[0].shape[position + 1 :]
    results = tuple(block(value.scalar, shape) for value in values)
    reduced = b.operation("reduce", values, results, (_combining(b, values, combine),), axis=position)
    if keep_dims:
        axes = tuple(range(rank)) if axis is None else (position,)
        reduced = tuple(expand_dims(b, value, axes) for value in reduced)
    return reduced if len(reduced) > 1 else reduced[0]


@function(method=True)
def reduce(b: Builder, input: Any, axis: int | None, combine_fn: Any, keep_dims: bool = False) -> Any:
    """One element, or one of each of several blocks, for all along ``axis`` (None: of the whole block)."""
    values = input if isinstance(input, tuple) else (input,)
    result = _along(b, b.alike(*values), axis, keep_dims, lambda *sides: b.call(combine_fn, *sides))
    return (result,) if isinstance(input, tuple) and not isinstance(result, tuple) else result


@function(method=True)
def associative_scan(b: Builder, input: Any, axis: int, combine_fn: Any, reverse: bool = False) -> Any:
    """Running results along ``axis``."""
    values = input if isinstance(input, tuple) else (input,)
    result = _scan(b, values, axis, reverse, lambda *sides: b.call(combine_fn, *sides))
    return (result,) if isinstance(input, tuple) and not isinstance(result, tuple) else result


def _scan(b: Builder, values: tuple[Value, ...], axis: int, reverse: bool, combine: Combine) -> Any:
    position = axis_of(axis, len(values[0].shape))
    types = tuple(value.type for value in values)
    sequence = _combining(b, values, combine)
    scanned = b.operation("scan", values, types, (sequence,), axis=position, reverse=bool(reverse))
    return scanned if len(scanned) > 1 else scanned[0]


def _sum_type(given: DType, asked: DType | None) -> DType:
    """Integers narrower than 32 bits add up in 32."""
    if asked is not None or not given.is_int() or given.int_bitwidth >= 32:
        return asked or given
    return types.uint32 if given.is_int_unsigned() else types.int32


@function(method=True)
def sum(b: Builder, input: Value, axis: int | None = None, keep_dims: bool = False, dtype: DType | None = None) -> Any:
    """The sum along ``axis``."""
    value = b.cast(input, _sum_type(b.tensor(input).number, dtype))
    return _along(b, (value,), axis, keep_dims, b.add)


@function(method=True)
def xor_sum(b: Builder, input: Value, axis: int | None = None, keep_dims: bool = False) -> Any:
    """The bits that an odd number of integers have."""
    return _along(b, (input,), axis, keep_dims, lambda x, y: b.bits("xor", x, y))


@function(method=True)
def reduce_or(b: Builder, input: Value, axis: int | None = None, keep_dims: bool = False) -> Any:
    """The bits that any of the integers has."""
    return _along(b, (input,), axis, keep_dims, lambda x, y: b.bits("or", x, y))


def _extreme(
    b: Builder, better: str, input: Value, axis: int | None, indices: bool, left: bool, keep_dims: bool
) -> Any:
    if indices:
        return _with_index(b, better, input, 0 if axis is None and len(input.shape) == 1 else axis, left, keep_dims)
    if input.number.primitive_bitwidth < 32:
        input = b.cast(input, types.float32 if input.number.is_floating() else types.int32)
    combine = maximum if better == "gt" else minimum
    return _along(b, (input,), axis, keep_dims, lambda x, y: combine(b, x, y))


def _with_index(b: Builder, better: str, input: Value, axis: int | None, left: bool, keep_dims: bool) -> Any:
    if axis is None:
        raise ValueError("the place of an extreme needs an axis")
    position = axis_of(axis, len(input.shape))
    others = tuple(d for d in range(len(input.shape)) if d != position)
    index = arange(b, 0, input.shape[position])
    index = b.broadcast(expand_dims(b, index, others) if others else index, input.shape)

    def combine(x: Value, i: Value, y: Value, j: Value) -> tuple[Value, Value]:
        first = b.compare(better, x, y)
        if left:
            first = b.bits("or", first, b.bits("and", b.compare("eq", x, y), b.compare("lt", i, j)))
        return b.where(first, x, y), b.where(first, i, j)

    return _along(b, (input, index), position, keep_dims, combine)


@function(method=True)
def max(
    b: Builder,
    input: Value,
    axis: int | None = None,
    return_indices: bool = False,
    return_indices_tie_break_left: bool = True,
    keep_dims: bool = False,
) -> Any:
    """The greatest element along ``axis``, with its place if asked for. Types below 32 bits become fp32 or int32."""
    return _extreme(b, "gt", input, axis, return_indices, return_indices_tie_break_left, keep_dims)


@function(method=True)
def min(
    b: Builder,
    input: Value,
    axis: int | None = None,
    return_indices: bool = False,
    return_indices_tie_break_left: bool = True,
    keep_dims: bool = False,
) -> Any:
    """The least element along ``axis``, with its place if asked for. Types below 32 bits become fp32 or int32."""
    return _extreme(b, "lt", input, axis, return_indices, return_indices_tie_break_left, keep_dims)


@function(method=True)
def argmax(b: Builder, input: Value, axis: int, tie_break_left: bool = True, keep_dims: bool = False) -> Any:
    """The place of the greatest element along ``axis``: int32."""
    return _with_index(b, "gt", input, axis, tie_break_left, keep_dims)[1]


@function(method=True)
def argmin(b: Builder, input: Value, axis: int, tie_break_left: bool = True, keep_dims: bool = False) -> Any:
    """The place of the least element along ``axis``: int32."""
    return _with_index(b, "lt", input, axis, tie_break_left, keep_dims)[1]


@function(method=True)
def cumsum(b: Builder, input: Value, axis: int = 0, reverse: bool = False, dtype: DType | None = None) -> Any:
    """Running sums along ``axis``, of bf16 in fp32."""
    return _running(b, b.cast(input, _sum_type(input.number, dtype)), axis, reverse, b.add)


@function(method=True)
def cumprod(b: Builder, input: Value, axis: int = 0, reverse: bool = False, dtype: DType | None = None) -> Any:
    """Running products along ``axis``, of bf16 in fp32."""
    return _running(b, b.cast(input, _sum_type(input.number, dtype)), axis, reverse, b.mul)


def _running(b: Builder, value: Value, axis: int, reverse: bool, combine: Combine) -> Value:
    """A scan that rounds to bf16 once: Triton 3.7 adds in fp32 and gives it, 3.9 adds in bf16 and gives that."""
    wide = types.float32 if value.number.is_bf16() else value.number
    return b.cast(_scan(b, (b.cast(value, wide),), axis, reverse, combine), value.number)


@function(method=True)
def softmax(b: Builder, x: Value, dim: int | None = None, keep_dims: Any = None, ieee_rounding: bool = False) -> Value:
    """``exp(x - max) / sum(exp(x - max))`` along ``dim``, by default the first axis."""
    axis = 0 if dim is None else dim
    powers = b.map("exp", b.sub(x, max(b, x, axis, keep_dims=True)))
    return b.truediv(powers, sum(b, powers, axis, keep_dims=True))
