"""Loads, stores and atomic operations through pointers, block pointers and tensor descriptors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from patcher.tiles import types
from patcher.tiles.builder import Builder, Operand
from patcher.tiles.library.registry import function, shape_of
from patcher.tiles.library.shapes import arange, expand_dims, full, together
from patcher.tiles.program import Value
from patcher.tiles.structures import BlockPointer
from patcher.tiles.types import DType, Pointer, block


def _element(pointer: Any) -> Any:
    if not isinstance(pointer, Value) or not isinstance(pointer.scalar, Pointer):
        raise TypeError(
            f"a pointer is needed here, and this is {pointer.type if isinstance(pointer, Value) else pointer!r}"
        )
    return pointer.scalar.element_ty


def _writable(pointer: Any) -> Any:
    """The element type. Raises TypeError for a pointer of which the kernel says that it only reads."""
    element = _element(pointer)
    if pointer.scalar.const:
        raise TypeError("Cannot store to a constant pointer: it is annotated as tl.const")
    return element


def _mask(b: Builder, mask: Any) -> Value | None:
    """A mask as int1; one that always holds as none."""
    return None if mask is None or mask is True else b.truth(mask)


@function(method=True)
def load(
    b: Builder,
    pointer: Any,
    mask: Any = None,
    other: Any = None,
    boundary_check: Any = (),
    padding_option: str = "",
    cache_modifier: str = "",
    eviction_policy: str = "",
    volatile: bool = False,
) -> Value:
    """What the pointer points to; where the mask does not hold ``other``, or 0. Cache hints change nothing."""
    if isinstance(pointer, BlockPointer):
        if mask is not None or other is not None:
            raise TypeError("a load through a block pointer takes boundary_check, and no mask or other")
        return _load_window(b, pointer, boundary_check, padding_option or pointer.padding)
    element = _element(pointer)
    test = _mask(b, mask)
    if other is not None and test is None:
        other = None
    rest = () if other is None else (_number(b, other, element),)
    operands = (pointer, *(() if test is None else (test,)), *rest)
    shape = together(*operands) if pointer.shape else ()
    operands = tuple(b.broadcast(operand, shape) for operand in operands)
    return b.value("load", operands, block(element, shape))


@function(method=True)
def store(
    b: Builder,
    pointer: Any,
    value: Operand,
    mask: Any = None,
    boundary_check: Any = (),
    cache_modifier: str = "",
    eviction_policy: str = "",
) -> None:
    """Writes where the mask holds. Cache hints change nothing."""
    if isinstance(pointer, BlockPointer):
        if mask is not None:
            raise TypeError("a store through a block pointer takes boundary_check, and no mask")
        pointer, mask = _window(b, pointer, boundary_check)
    element = _writable(pointer)
    stored = _number(b, value, element)
    test = _mask(b, mask)
    operands = (pointer, stored, *(() if test is None else (test,)))
    shape = together(*operands) if pointer.shape else ()
    b.operation("store", tuple(b.broadcast(operand, shape) for operand in operands))


def _number(b: Builder, value: Any, element: Any) -> Value:
    return b.cast(b.tensor(value), element)


# -- atomic operations ---------------------------------------------------------------------------------------------


def _check_atomic(name: str, element: Any) -> None:
    """Raises TypeError for a type that Triton's atomic operations do not take either."""
    if name in ("and", "or", "xor") and not element.is_int():
        raise TypeError(f"atomic_{name} takes integers, and this is {element}")
    halves = ("fp16", "bf16") if name == "add" else ()
    if element.primitive_bitwidth < 32 and str(element) not in halves:
        raise TypeError(f"atomic_{name} does not support {element}")


def _atomic(name: str) -> None:
    def atomic(
        b: Builder, pointer: Any, val: Any, mask: Any = None, sem: str | None = None, scope: str | None = None
    ) -> Value:
        if isinstance(pointer, BlockPointer):  # of a descriptor: offsets and value
            window, val = replace(pointer, offsets=_words(b, val, types.int32)), mask
            pointer, mask = _window(b, window, ())
        element = _writable(pointer)
        _check_atomic(name, element)
        test = _mask(b, mask)
        operands = (pointer, _number(b, val, element), *(() if test is None else (test,)))
        shape = together(*operands) if pointer.shape else ()
        operands = tuple(b.broadcast(operand, shape) for operand in operands)
        return b.value("atomic", operands, block(element, shape), fn=name)

    function(f"atomic_{name}", method=True)(atomic)


for _name in ("add", "max", "min", "and", "or", "xor", "xchg"):
    _atomic(_name)


@function(method=True)
def atomic_cas(
    b: Builder, pointer: Value, cmp: Operand, val: Operand, sem: str | None = None, scope: str | None = None
) -> Value:
    """Writes ``val`` where ``cmp`` stands; gives what stood there."""
    element = _writable(pointer)
    operands = (pointer, _number(b, cmp, element), _number(b, val, element))
    shape = together(*operands) if pointer.shape else ()
    return b.value("cas", tuple(b.broadcast(operand, shape) for operand in operands), block(element, shape))


# -- windows onto tensors ------------------------------------------------------------------------------------------


def _words(b: Builder, numbers: Any, dtype: DType) -> tuple[Value, ...]:
    numbers = numbers if isinstance(numbers, tuple) else (numbers,)
    return tuple(b.numeric(number, dtype) for number in numbers)


@function()
def make_block_ptr(
    b: Builder, base: Value, shape: Any, strides: Any, offsets: Any, block_shape: Any, order: Any = None
) -> BlockPointer:
    """A window onto a tensor that can be advanced; ``order`` changes nothing."""
    window = BlockPointer(
        base,
        _words(b, shape, types.int64),
        _words(b, strides, types.int64),
        _words(b, offsets, types.int32),
        shape_of((block_shape,)),
    )
    if len({len(part) for part in (window.shape, window.strides, window.offsets, window.block_shape)}) != 1:
        raise TypeError("shape, strides, offsets and block_shape have different lengths")
    return window


@function(method=True)
def advance(b: Builder, base: BlockPointer, offsets: Any) -> BlockPointer:
    """The window moved by ``offsets`` elements along each axis."""
    steps = _words(b, offsets, types.int32)
    return replace(base, offsets=tuple(b.add(at, step) for at, step in zip(base.offsets, steps, strict=True)))


@function("make_tensor_descriptor", "_experimental_make_tensor_descriptor")
def make_tensor_descriptor(
    b: Builder, base: Value, shape: Any, strides: Any, block_shape: Any, padding_option: str = "zero"
) -> BlockPointer:
    """A tensor that is read and written in blocks; what lies outside is padding, and is not written."""
    rank = len(shape_of((block_shape,)))
    zeros = (b.constant(0, types.int32),) * rank
    window = make_block_ptr(b, base, shape, strides, zeros, block_shape)
    return replace(window, checked=True, padding=padding_option)


@function("load_tensor_descriptor")
def load_descriptor(b: Builder, desc: BlockPointer, offsets: Any) -> Value:
    """The block at ``offsets``."""
    return _load_window(b, replace(desc, offsets=_words(b, offsets, types.int32)), (), desc.padding)


@function("store_tensor_descriptor")
def store_descriptor(b: Builder, desc: BlockPointer, offsets: Any, value: Value) -> None:
    """Writes the block at ``offsets``."""
    store(b, replace(desc, offsets=_words(b, offsets, types.int32)), b.reshape(value, desc.block_shape))


@function("gather_tensor_descriptor")
def gather_rows(b: Builder, desc: BlockPointer, x_offsets: Value, y_offset: Operand) -> Value:
    """The rows ``x_offsets`` from the column ``y_offset`` on, each as long as the block; 0 outside."""
    pointer, mask = _rows(b, desc, x_offsets, y_offset)
    return load(b, pointer, mask)


@function("scatter_tensor_descriptor")
def scatter_rows(b: Builder, desc: BlockPointer, value: Value, x_offsets: Value, y_offset: Operand) -> None:
    """Writes the rows ``x_offsets`` from the column ``y_offset`` on; nothing outside."""
    pointer, mask = _rows(b, desc, x_offsets, y_offset)
    store(b, pointer, value, mask)


def _rows(b: Builder, desc: BlockPointer, rows: Value, column: Operand) -> tuple[Value, Value]:
    """Pointers to elements of rows that a block names, and which of them are inside."""
    if len(desc.block_shape) != 2 or desc.block_shape[0] != 1 or len(rows.shape) != 1:
        raise TypeError(f"rows {rows.type} of a descriptor with blocks of {list(desc.block_shape)}, which are one row")
    row = b.cast(expand_dims(b, rows, 1), types.int64)
    line = b.add(arange(b, 0, desc.block_shape[1]), b.tensor(column))
    line = b.cast(expand_dims(b, line, 0), types.int64)
    pointer, mask = desc.base, None
    for index, stride, extent in zip((row, line), desc.strides, desc.shape, strict=True):
        pointer = b.add(pointer, b.mul(index, stride))
        inside = b.bits("and", b.compare("ge", index, 0), b.compare("lt", index, extent))
        mask = inside if mask is None else b.bits("and", mask, inside)
    assert mask is not None
    return pointer, mask


def _window(b: Builder, window: BlockPointer, boundary_check: Any) -> tuple[Value, Value | None]:
    """Pointers to all elements of a window, and which of them are inside along the axes that are checked."""
    rank = len(window.block_shape)
    checked = range(rank) if window.checked else shape_of((boundary_check,)) if boundary_check != () else ()
    pointer, mask = window.base, None
    for axis in range(rank):
        line = arange(b, 0, window.block_shape[axis])
        if rank > 1:
            line = expand_dims(b, line, tuple(d for d in range(rank) if d != axis))
        index = b.add(b.cast(line, types.int64), b.cast(window.offsets[axis], types.int64))
        pointer = b.offset(pointer, b.mul(index, window.strides[axis]))
        if axis in checked:
            inside = b.bits("and", b.compare("ge", index, 0), b.compare("lt", index, window.shape[axis]))
            mask = inside if mask is None else b.bits("and", mask, inside)
    return b.broadcast(pointer, window.block_shape), mask


def _load_window(b: Builder, window: BlockPointer, boundary_check: Any, padding: str) -> Value:
    pointer, mask = _window(b, window, boundary_check)
    element = _element(pointer)
    if padding not in ("zero", "nan", ""):
        raise ValueError(f"padding_option is 'zero' or 'nan', not {padding!r}")
    other = full(b, (), float("nan"), element) if padding == "nan" and mask is not None else None
    return load(b, pointer, mask, other)
