"""Classes of a kernel's own: fields, methods, constructors, inheritance, copies; through branches and loops."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from tests.tiles.registry import Make, case

NO_METHODS = "Triton's interpreter knows no methods of aggregates"


@triton.aggregate
class Pair:
    first: tl.tensor
    second: tl.tensor

    @triton.jit
    def total(self, scale):
        return (self.first + self.second) * scale

    @triton.jit
    def swapped(self):
        return Pair(self.second, self.first)

    @triton.jit
    def __add__(self, other):
        return Pair(self.first + other.first, self.second + other.second)

    @triton.jit
    def __getitem__(self, index: tl.constexpr):
        return self.first if index == 0 else self.second


@triton.aggregate
class Tile:
    values: tl.tensor
    N: tl.constexpr
    factor: tl.constexpr = tl.constexpr(3)

    @staticmethod
    @triton.jit
    def read(pointer, N: tl.constexpr):
        return Tile(tl.load(pointer + tl.arange(0, N)), N)

    @triton.constexpr_function
    def half(self):
        return self.N // 2

    @triton.jit
    def scaled(self):
        return self.values * self.factor


@triton.aggregate
class Named(Tile):
    shift: tl.tensor

    @triton.jit
    def shifted(self):
        return self.scaled() + self.shift


@triton.jit
def methods_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    pair = Pair(tl.load(x_ptr + at), second=tl.load(x_ptr + N + at))
    tl.store(out_ptr + at, pair.total(2.0))
    tl.store(out_ptr + N + at, pair.swapped().first - pair.first)
    tl.store(out_ptr + 2 * N + at, (pair + pair.swapped()).second)
    tl.store(out_ptr + 3 * N + at, pair[0] * pair[1])


@case(instead=NO_METHODS)
def methods(make: Make) -> tuple[torch.Tensor, torch.Tensor]:
    """Methods that make others, operators, indices."""
    (x, y), out = given = make.floats(2, 16), make.out(4, 16)
    methods_kernel[(1,)](*given, 16)
    return out, torch.stack(((x + y) * 2, y - x, y + x, x * y))


@triton.jit
def constants_kernel(x_ptr, out_ptr, N: tl.constexpr):
    tile = Tile.read(x_ptr, N)
    tl.store(out_ptr + tl.arange(0, N), tile.scaled())
    tl.store(out_ptr + N + tl.arange(0, tile.N), tile.half() + tile.values)
    other = tl.aggregate_replace(tile, factor=tl.constexpr(5))
    tl.store(out_ptr + 2 * N + tl.arange(0, N), other.scaled() - tile.scaled())
    child = Named(tile.values, N, shift=tile.values * 2, factor=7)
    tl.store(out_ptr + 3 * N + tl.arange(0, N), child.shifted())


@case(instead=NO_METHODS)
def methods_of_constants(make: Make) -> tuple[torch.Tensor, torch.Tensor]:
    """A constructor that is a static method, a method of Python, one that is inherited."""
    x, out = make.floats(16), make.out(4, 16)
    constants_kernel[(1,)](x, out, 16)
    return out, torch.stack((x * 3, x + 8, x * 5 - x * 3, x * 7 + x * 2))


@triton.jit
def fields_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tile = Tile(tl.load(x_ptr + at), N)
    tl.store(out_ptr + tl.arange(0, tile.N), tile.values * tile.factor)
    other = tl.aggregate_replace(tile, factor=tl.constexpr(5), values=tile.values + 1)
    tl.store(out_ptr + N + at, other.values * other.factor - tile.values)
    child = Named(tile.values, N, shift=other.values, factor=7)
    tl.store(out_ptr + 2 * N + at, child.values * child.factor + child.shift)
    tl.static_assert(isinstance(child, Named))
    tl.static_assert(child.N == N)


@case
def fields(make: Make) -> torch.Tensor:
    """Constructors by place and name, a default, fields that are inherited, copies."""
    out = make.out(3, 16)
    fields_kernel[(1,)](make.floats(16), out, 16)
    return out


@triton.aggregate
class Both:
    pair: Pair
    sizes: tl.tuple


@triton.jit
def sum_of(both, N: tl.constexpr):
    return both.pair.first * both.sizes[0] + both.pair.second * both.sizes[1]


@triton.jit
def nested_kernel(x_ptr, out_ptr, number, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    both = Both(Pair(x, x + 1), (number, 4))
    tl.store(out_ptr + at, sum_of(both, N))


@case
def one_within_another(make: Make) -> torch.Tensor:
    """A field that is an aggregate, and a tuple of a number and a constant; an argument of a function."""
    out = make.out(16)
    nested_kernel[(1,)](make.floats(16), out, 3, 16)
    return out


@triton.jit
def carried_kernel(x_ptr, out_ptr, turns, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    state = Pair(x, x * 0)
    for turn in range(turns):
        if turn % 2 == 0:
            state = Pair(state.first + turn, state.second)
        else:
            state = Pair(state.second, state.first)
    tl.store(out_ptr + at, state.first)
    tl.store(out_ptr + N + at, state.second)


@case(each=(0, 1, 5))
def carried_through_branches_and_loops(make: Make, turns: int) -> torch.Tensor:
    """A loop that hands one on, and branches that each make another."""
    out = make.out(2, 16)
    carried_kernel[(1,)](make.floats(16), out, turns, 16)
    return out


@triton.aggregate
class Signed:
    value: tl.tensor

    @triton.jit
    def __neg__(self):
        return Signed(-self.value)

    @triton.jit
    def __pos__(self):
        return Signed(tl.abs(self.value))

    @triton.jit
    def __invert__(self):
        return self.value + 1

    @triton.jit
    def __not__(self):
        return self.value == 0

    @triton.jit
    def __eq__(self, other):
        return Signed(self.value - other.value)

    @triton.jit
    def __gt__(self, number):
        return self.value > number


@triton.aggregate
class Doubled(Signed):
    factor: tl.constexpr = 2

    @triton.jit
    def __eq__(self, other):
        return Signed((self.value + other.value) * self.factor)


@triton.jit
def operators_kernel(x_ptr, y_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x, y = Signed(tl.load(x_ptr + at)), Doubled(tl.load(y_ptr + at))
    tl.store(out_ptr + at, (-x).value)
    tl.store(out_ptr + N + at, (+x).value)
    tl.store(out_ptr + 2 * N + at, ~x)
    tl.store(out_ptr + 3 * N + at, not x)
    tl.store(out_ptr + 4 * N + at, (x == Signed(y.value)).value)
    tl.store(out_ptr + 5 * N + at, (x == y).value)
    tl.store(out_ptr + 6 * N + at, 0.5 < x)
    tl.store(out_ptr + 7 * N + at, y > x.value)


@case(instead=NO_METHODS)
def signs_and_comparisons(make: Make) -> tuple[torch.Tensor, torch.Tensor]:
    """Of one operand, of two, reflected; what a method gives is the result, an aggregate too; a derived class first."""
    (x, y), out = make.floats(2, 16), make.out(8, 16)
    x[0] = 0
    operators_kernel[(1,)](x, y, out, 16)
    return out, torch.stack((-x, x.abs(), x + 1, x == 0, x - y, (y + x) * 2, x > 0.5, y > x))


@triton.aggregate
class Counted:
    values: tl.tensor
    count: tl.constexpr

    @triton.constexpr_function
    def __init__(self, values, count):
        self.values = values
        self.count = tl.constexpr(0)
        if count > 2:
            self.count = tl.constexpr(count)

    @triton.constexpr_function
    def half(self):
        return self.count // 2 if max(self.count, 2) > 2 else -self.count + 1


@triton.jit
def constructor_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    tl.store(out_ptr + at, Counted(x, 2).count + x)
    tl.store(out_ptr + N + at, Counted(x, 6).count + x)
    tl.store(out_ptr + 2 * N + at, Counted(x, 2).half() * x)
    tl.store(out_ptr + 3 * N + at, Counted(x, 6).half() * x)


@case(instead=NO_METHODS)
def constructor_that_assigns_again(make: Make) -> tuple[torch.Tensor, torch.Tensor]:
    """A field gets another value before the constructor ends; Python computes with a constant that is a field."""
    x, out = make.floats(16), make.out(4, 16)
    constructor_kernel[(1,)](x, out, 16)
    return out, torch.stack((x, x + 6, x, x * 3))
