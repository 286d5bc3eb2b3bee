"""Blocks made and rearranged."""

from __future__ import annotations

from typing import Any

from patcher.tiles import types
from patcher.tiles.builder import Builder, Operand
from patcher.tiles.library.elementwise import scalar_type
from patcher.tiles.library.registry import axis_of, function, shape_of
from patcher.tiles.program import Value
from patcher.tiles.types import DType, block, broadcast_shapes


@function()
def program_id(b: Builder, axis: int) -> Value:
    """Where the program is in the grid along ``axis``: 0, 1 or 2."""
    return b.value("program_id", (), types.int32, axis=_grid_axis(axis))


@function()
def num_programs(b: Builder, axis: int) -> Value:
    """The grid's extent along ``axis``: 0, 1 or 2."""
    return b.value("num_programs", (), types.int32, axis=_grid_axis(axis))


def _grid_axis(axis: Any) -> int:
    if axis not in (0, 1, 2) or isinstance(axis, bool):
        raise ValueError(f"program_id axis must be 0, 1, or 2 but got {axis!r}")
    return int(axis)


@function()
def arange(b: Builder, start: int, end: int) -> Value:
    """int32 from ``start`` to ``end - 1``; as many as a power of two."""
    if not isinstance(start, int) or not isinstance(end, int):
        raise TypeError("arange takes integers that are known at compile time (tl.constexpr)")
    if end <= start:
        raise ValueError(f"arange from {start} to {end} is empty")
    return b.value("arange", (), block(types.int32, (end - start,)), start=int(start), stop=int(end))


@function()
def full(b: Builder, shape: Any, value: Operand, dtype: Any) -> Value:
    """A block of one value."""
    scalar = scalar_type(dtype)
    if isinstance(value, Value):
        filled = b.cast(b.reshape(value, ()), scalar)
    elif isinstance(scalar, DType):
        filled = b.constant(value, scalar)
    else:
        raise TypeError("full makes blocks of numbers")
    return b.broadcast(filled, shape_of((shape,)))


@function()
def zeros(b: Builder, shape: Any, dtype: Any) -> Value:
    """A block of zeros."""
    return full(b, shape, 0, dtype)


@function()
def zeros_like(b: Builder, input: Value) -> Value:
    """Zeros of the same shape and type."""
    return full(b, input.shape, 0, input.scalar)


@function(method=True)
def broadcast_to(b: Builder, input: Operand, *shape: Any) -> Value:
    """The value repeated to ``shape``."""
    return b.broadcast(input, shape_of(shape))


@function()
def broadcast(b: Builder, input: Operand, other: Operand) -> tuple[Value, ...]:
    """Both values in the shape that they have together."""
    return b.alike(input, other)


@function("reshape", "view", method=True)
def reshape(b: Builder, input: Operand, *shape: Any, can_reorder: bool = False) -> Value:
    """The elements in row-major order in another shape."""
    value, target = b.tensor(input), shape_of(shape)
    return b.reshape(value, target) if value.shape else b.broadcast(value, target)


@function(method=True)
def ravel(b: Builder, x: Value, can_reorder: bool = False) -> Value:
    """One axis of all elements, in row-major order."""
    return b.reshape(x, (x.type.numel,))


@function(method=True)
def item(b: Builder, input: Value) -> Value:
    """The only element of a block as a scalar."""
    return b.reshape(input, ())


@function("expand_dims", "unsqueeze", method=True)
def expand_dims(b: Builder, input: Operand, axis: Any) -> Value:
    """New axes of extent 1 at ``axis``, one or several."""
    value = b.tensor(input)
    axes = list(axis) if isinstance(axis, (tuple, list)) else [axis]
    rank = len(value.shape) + len(axes)
    shape = list(value.shape)
    positions = sorted(axis_of(one, rank) for one in axes)
    if len(set(positions)) < len(positions):
        raise ValueError(f"duplicate axes, normalized axes = {positions}")
    for position in positions:
        shape.insert(position, 1)
    return b.reshape(value, tuple(shape)) if value.shape else b.broadcast(value, tuple(shape))


@function()
def squeeze(b: Builder, x: Value, dim: int) -> Value:
    """Without the axis ``dim``, whose extent is 1."""
    position = axis_of(dim, len(x.shape))
    return b.reshape(x, x.shape[:position] + x.shape[position + 1 :])


@function("permute", method=True)
def permute(b: Builder, input: Value, *dims: Any) -> Value:
    """The axes in another order."""
    order = shape_of(dims)
    if sorted(order) != list(range(len(input.shape))):
        raise ValueError(f"{list(order)} is no order of {len(input.shape)} axes")
    shape = tuple(input.shape[axis] for axis in order)
    return b.value("permute", (input,), block(input.scalar, shape), order=order)


@function("trans", method=True)
def trans(b: Builder, input: Value, *dims: Any) -> Value:
    """The axes in another order, by default the last two exchanged."""
    rank = len(input.shape)
    if not dims and rank < 2:
        raise ValueError("trans needs a block with two axes")
    return permute(b, input, *(dims or ((*range(rank - 2), rank - 1, rank - 2),)))


@function()
def join(b: Builder, a: Operand, c: Operand) -> Value:
    """Two blocks along a new last axis of extent 2."""
    left, right = b.alike(a, c)
    if left.scalar != right.scalar:
        raise TypeError(f"join of {left.type} and {right.type}")
    return b.value("join", (left, right), block(left.scalar, (*left.shape, 2)))


@function(method=True)
def split(b: Builder, a: Value) -> tuple[Value, ...]:
    """A block with a last axis of extent 2 as its two halves."""
    if not a.shape or a.shape[-1] != 2:
        raise TypeError(f"split needs a last axis of extent 2, and this is {a.type}")
    half = block(a.scalar, a.shape[:-1])
    return b.operation("split", (a,), (half, half))


@function()
def interleave(b: Builder, a: Operand, c: Operand) -> Value:
    """Two blocks with their elements in turns along the last axis."""
    joined = join(b, a, c)
    if len(joined.shape) == 1:
        return joined
    return b.reshape(joined, (*joined.shape[:-2], 2 * joined.shape[-2]))


@function()
def cat(b: Builder, input: Value, other: Value, can_reorder: bool = False, dim: int = 0) -> Value:
    """Two blocks, one after the other along the axis ``dim``; the order is always kept."""
    axis = axis_of(dim, len(input.shape))
    if input.type != other.type:
        raise TypeError(f"cat of {input.type} and {other.type}")
    shape = (*input.shape[:axis], 2 * input.shape[axis], *input.shape[axis + 1 :])
    return b.value("cat", (input, other), block(input.scalar, shape), axis=axis)


@function(method=True)
def gather(b: Builder, src: Value, index: Value, axis: int) -> Value:
    """``src[..., index[...], ...]`` along ``axis``; the other extents are the same."""
    position = axis_of(axis, len(src.shape))
    others = [(m, n) for d, (m, n) in enumerate(zip(src.shape, index.shape, strict=False)) if d != position]
    if len(src.shape) != len(index.shape) or any(m != n for m, n in others) or not index.number.is_int():
        raise TypeError(f"gather from {src.type} with an index of {index.type}")
    return b.value("gather", (src, index), block(src.scalar, index.shape), axis=position)


@function(method=True)
def flip(b: Builder, x: Value, dim: int | None = None) -> Value:
    """The elements in reverse along ``dim``, by default the last axis."""
    return b.value("flip", (x,), x.type, axis=axis_of(-1 if dim is None else dim, len(x.shape)))


@function(method=True)
def sort(b: Builder, x: Value, dim: int | None = None, descending: Any = False) -> Value:
    """The elements in order along the last axis."""
    axis = axis_of(-1 if dim is None else dim, len(x.shape))
    if axis != len(x.shape) - 1:
        raise ValueError("sort works along the last axis")
    return b.value("sort", (x,), x.type, axis=axis, descending=bool(descending))


@function()
def topk(b: Builder, x: Value, k: int, dim: int | None = None, descending: Any = True) -> Value:
    """The first ``k``, a power of two, of the elements in order along the last axis."""
    ordered = sort(b, x, dim, descending)
    if k > x.shape[-1]:
        raise ValueError(f"topk of {k} among {x.shape[-1]}")
    index = b.broadcast(arange(b, 0, k), (*x.shape[:-1], k))
    return gather(b, ordered, index, -1)


@function(method=True)
def histogram(b: Builder, input: Value, num_bins: int, mask: Value | None = None) -> Value:
    """How often 0, 1, ... ``num_bins - 1`` stand in a block of one axis: int32."""
    if len(input.shape) != 1 or not input.number.is_int():
        raise TypeError(f"histogram takes integers along one axis, and this is {input.type}")
    operands = (input,) if mask is None else (input, b.broadcast(b.truth(mask), input.shape))
    return b.value("histogram", operands, block(types.int32, (num_bins,)))


def together(*values: Value) -> tuple[int, ...]:
    """The shape that values have together."""
    shape: tuple[int, ...] = ()
    for value in values:
        shape = broadcast_shapes(shape, value.shape)
    return shape
