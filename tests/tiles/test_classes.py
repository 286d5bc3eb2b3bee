"""Aggregates outside of kernels, constants, types of what is known, and functions of Python that kernels call.

What kernels do with aggregates is in ``programs/aggregates.py`` and compared with Triton.
"""

from __future__ import annotations

import math
import operator
from typing import NamedTuple

import pytest
import torch

from patcher.tiles import types
from patcher.tiles.classes import aggregate, aggregate_replace
from patcher.tiles.language import builtin, constexpr, constexpr_type, tensor, tuple_type
from tests.tiles.jit import jit, tl

X = torch.float32


@aggregate
class Sizes:
    rows: constexpr
    columns: constexpr = constexpr(4)


@aggregate
class Named(Sizes):
    shape: tuple


class Point(NamedTuple):
    x: int
    y: int


def test_constructors_take_fields_in_order_or_by_name() -> None:
    """Those of the class that it inherits from first; what is no constant becomes one, within tuples too."""
    assert [field.value for field in Sizes(3).parts()] == [3, 4]
    named = Named(3, columns=5, shape=Point(1, constexpr(2)))
    assert (named.rows.value, named.columns.value, named.shape.y.value) == (3, 5, 2)
    assert isinstance(named, Sizes) and isinstance(named.shape, Point)
    for args, kwargs in (((), {}), ((1, 2, 3), {}), ((1,), {"rows": 2}), ((1,), {"depth": 2})):
        with pytest.raises(TypeError, match="Sizes"):
            Sizes(*args, **kwargs)


def test_only_a_constructor_assigns_fields_and_a_copy_has_other_values() -> None:
    """The first one keeps its own."""
    sizes = Sizes(3)
    with pytest.raises(AttributeError, match="cannot assign to field 'rows' on immutable aggregate Sizes"):
        sizes.rows = constexpr(4)
    with pytest.raises(AttributeError, match="no attribute 'depth'"):
        sizes.depth = constexpr(4)
    assert aggregate_replace(sizes, rows=9).rows.value == 9 and sizes.rows.value == 3
    with pytest.raises(TypeError, match="has no field 'depth'"):
        aggregate_replace(sizes, depth=1)
    with pytest.raises(TypeError, match="expects an aggregate"):
        aggregate_replace(3, rows=1)


def test_a_constructor_assigns_every_field_as_often_as_it_likes() -> None:
    """One of a class that it inherits from, called by its own, leaves the fields open; afterwards none is."""

    @aggregate
    class Rounded:
        size: constexpr

        def __init__(self, size: int) -> None:
            self.size = size
            if size % 4:
                self.size = size + 4 - size % 4

    @aggregate
    class Twice(Rounded):
        half: constexpr

        def __init__(self, size: int) -> None:
            Rounded.__init__(self, size)
            self.size *= 2
            if size:
                self.half = self.size // 2

    assert (Rounded(4).size.value, Rounded(5).size.value) == (4, 8)
    twice = Twice(5)
    assert (twice.size.value, twice.half.value) == (16, 8)
    with pytest.raises(AttributeError, match="cannot assign to field 'size'"):
        twice.size = 3
    with pytest.raises(AttributeError, match="the constructor of Twice leaves out half"):
        Twice(0)


def test_aggregates_inherit_from_aggregates_alone() -> None:
    """Fields of another class would be none."""
    with pytest.raises(TypeError, match="can only inherit from other aggregates"):
        aggregate(type("Child", (Point,), {"__annotations__": {}}))


def test_constants_compute() -> None:
    """Outside of kernels too, with numbers on either side; the result is one."""
    size = constexpr(12)
    found = [size + 1, 1 + size, size - 5, 5 - size, size // 5, 25 // size, size * 2, size / 8, 2**size, size << 1]
    assert all(isinstance(one, constexpr) for one in found)
    assert [one.value for one in found] == [13, 13, 7, -7, 2, 2, 24, 1.5, 4096, 24]


def test_constants_compare_and_hold() -> None:
    """Order, signs, bits, elements, calls and logic give what Python gives for the values."""
    size, pair = constexpr(4), constexpr((1, 2))
    found = [
        size < 8,
        operator.gt(8, size),
        size <= 3,
        operator.ge(3, size),
        size > 4,
        size == 4,
        size != constexpr(4),
        -size,
        +size,
        ~size,
    ]
    found += [size.logical_and(0), constexpr(0).logical_or(size), 6 & size, size | 1, 1 ^ size, max(size, 2)]
    assert all(isinstance(one, constexpr) for one in found)
    assert [one.value for one in found] == [
        *(True, True, False, False, False, True, False, -4, 4, -5),
        *(0, 4, 4, 5, 5, 4),
    ]
    assert (list(pair), pair[constexpr(1)], constexpr(min)(3, 2)) == ([1, 2], 2, 2)
    assert size in {4: "four"} and list(range(size)) == [0, 1, 2, 3]


def test_a_constant_is_an_index_only_if_it_is_whole() -> None:
    """It lost its fraction on the way to a float."""
    assert (float(constexpr(2.5)), math.sqrt(constexpr(6.25)), int(constexpr(3))) == (2.5, 2.5, 3)
    for use in (int, range, [1, 2, 3].__getitem__):
        with pytest.raises(TypeError):
            use(constexpr(2.5))


def test_types_of_what_is_known() -> None:
    """A constant's type is its value; of a name that is assigned a number it is a tensor's."""

    @jit
    def kernel(x, N: tl.constexpr):
        a: tl.constexpr = 5
        tl.static_assert(a.type == constexpr_type(5) and N.type == constexpr_type(8))
        b, c = 1, 2.5
        tl.static_assert(b.type == types.int32 and c.type == types.float32)
        both = (b, c)
        tl.static_assert(both.type == tuple_type([types.int32, types.float32]))
        tl.static_assert((1, 2).type == constexpr_type((1, 2)))
        d: tl.constexpr
        e, d = 1, 2
        tl.static_assert(d.type == constexpr_type(2) and e.type == types.int32)
        if (d := N) == 8:
            tl.static_assert(d.type == types.int32)
        f: tl.constexpr
        if (f := N) == 8:
            tl.static_assert(f.type == constexpr_type(8))
        tl.store(x, b)

    kernel.compile(X, N=8)


def test_a_python_function_calls_the_language_with_semantic() -> None:
    """It hands on what it is given, and its result is the kernel's."""

    @builtin
    def line(start, width, _semantic=None):
        return tl.arange(start, start + width, _semantic=_semantic)

    @aggregate
    class Line:
        at: tensor

        def __init__(self, width, _semantic=None):
            self.at = tl.arange(0, width, _semantic=_semantic)

        def first(self, _semantic=None):
            return self.at

    @jit
    def kernel(x):
        tl.store(x + line(0, 8), 1.0)
        tl.store(x + Line(8).first(), 2.0)

    assert [op.kind for op in kernel.compile(X).operations()].count("arange") == 2
