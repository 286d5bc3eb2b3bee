"""Kernels that the shim must refuse. The line that the error has to name ends with ``# <-``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

REFUSED: dict[str, tuple[Any, str, Callable[[], Any]]] = {}
"""By name: the function whose name and marked line the message holds, another part of it, and what to run."""

NUMBER = 3
X = torch.arange(16.0)


def refused(kernel: Any, says: str = "") -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Declares a launch that is refused."""

    def declare(launch: Callable[[], Any]) -> Callable[[], Any]:
        REFUSED[launch.__name__] = (kernel, says, launch)
        return launch

    return declare


def out() -> torch.Tensor:
    """An output of 16."""
    return torch.zeros(16)


@triton.jit
def assembly_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    y = tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [x], dtype=tl.float32, is_pure=True, pack=1)  # <-
    tl.store(out_ptr + at, y)


@refused(assembly_kernel, "inline_asm_elementwise")
def inline_assembly() -> None:
    """PTX has no meaning on this machine."""
    assembly_kernel[(1,)](X, out(), 16)


@triton.jit
def comprehension_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    values = [tl.load(x_ptr + at + i) for i in at]  # <-
    tl.store(out_ptr + at, values)


@refused(comprehension_kernel)
def comprehension_over_a_block() -> None:
    """A list that is built of a block's elements."""
    comprehension_kernel[(1,)](X, out(), 16)


@triton.jit
def try_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    try:  # <-
        tl.store(out_ptr + at, tl.load(x_ptr + at))
    finally:
        pass


@refused(try_kernel, "Try")
def exception_handling() -> None:
    """try."""
    try_kernel[(1,)](X, out(), 16)


@triton.jit
def with_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    with open("x"):  # <-
        tl.store(out_ptr + at, tl.load(x_ptr + at))


@refused(with_kernel)
def with_statement() -> None:
    """with."""
    with_kernel[(1,)](X, out(), 16)


@triton.jit
def lambda_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    twice = lambda x: x * 2  # noqa: E731  # <-
    tl.store(out_ptr + at, twice(tl.load(x_ptr + at)))


@refused(lambda_kernel)
def lambda_function() -> None:
    """lambda."""
    lambda_kernel[(1,)](X, out(), 16)


@triton.jit
def name_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.load(x_ptr + at) * undefined)  # noqa: F821  # <-


@refused(name_kernel, "undefined")
def undefined_name() -> None:
    """A name that nobody has defined."""
    name_kernel[(1,)](X, out(), 16)


@triton.jit
def global_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.load(x_ptr + at) * NUMBER)  # <-


@refused(global_kernel, "NUMBER")
def global_that_is_no_constant() -> None:
    """A variable of the module that is no ``tl.constexpr``."""
    global_kernel[(1,)](X, out(), 16)


@triton.jit
def function_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, torch.exp(tl.load(x_ptr + at)))  # <-


@refused(function_kernel, "exp")
def function_of_torch() -> None:
    """A function that is no part of the kernel language."""
    function_kernel[(1,)](X, out(), 16)


@triton.jit
def unknown_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.nosuch(tl.load(x_ptr + at)))  # <-


@refused(unknown_kernel, "nosuch")
def unknown_function() -> None:
    """A name that ``triton.language`` does not have."""
    unknown_kernel[(1,)](X, out(), 16)


@triton.jit
def element_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    tl.store(out_ptr + at, x[0])  # <-


@refused(element_kernel)
def element_of_a_block() -> None:
    """Blocks have no elements by index."""
    element_kernel[(1,)](X, out(), 16)


@triton.jit
def condition_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    if x > 0:  # <-
        x = -x
    tl.store(out_ptr + at, x)


@refused(condition_kernel)
def condition_of_a_block() -> None:
    """A branch on a block."""
    condition_kernel[(1,)](X, out(), 16)


@triton.jit
def shapes_kernel(x_ptr, out_ptr, N: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, N))
    y = tl.load(x_ptr + tl.arange(0, N // 2))
    tl.store(out_ptr + tl.arange(0, N), x + y)  # <-


@refused(shapes_kernel)
def shapes_that_do_not_fit() -> None:
    """16 and 8."""
    shapes_kernel[(1,)](X, out(), 16)


@triton.jit
def arange_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)  # <-
    tl.store(out_ptr + at, tl.load(x_ptr + at))


@refused(arange_kernel, "12")
def block_size_that_is_no_power_of_two() -> None:
    """12."""
    arange_kernel[(1,)](X, out(), 12)


@triton.jit
def runtime_kernel(x_ptr, out_ptr, n):
    at = tl.arange(0, n)  # <-
    tl.store(out_ptr + at, tl.load(x_ptr + at))


@refused(runtime_kernel)
def block_size_that_is_no_constant() -> None:
    """arange of an argument."""
    runtime_kernel[(1,)](X, out(), 16)


@triton.jit
def assert_kernel(x_ptr, out_ptr, N: tl.constexpr):
    tl.static_assert(N > 100, "N must be large")  # <-
    tl.store(out_ptr + tl.arange(0, N), 0)


@refused(assert_kernel, "N must be large")
def static_assertion() -> None:
    """static_assert that does not hold."""
    assert_kernel[(1,)](X, out(), 16)


@triton.jit
def carried_kernel(x_ptr, out_ptr, n, N: tl.constexpr):
    total = tl.zeros([N], dtype=tl.float32)
    for _ in range(n):  # <-
        total = tl.sum(total, axis=0)
    tl.store(out_ptr + tl.arange(0, N), total)


@refused(carried_kernel, "total")
def type_that_changes_in_a_loop() -> None:
    """A block becomes a number."""
    carried_kernel[(1,)](X, out(), 3, 16)


@triton.jit
def division_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.load(x_ptr + at) // 2)  # <-


@refused(division_kernel, "//")
def floor_division_of_floats() -> None:
    """// is for whole numbers."""
    division_kernel[(1,)](X, out(), 16)


@triton.jit
def inner(x):
    return torch.exp(x)  # <-


@triton.jit
def outer_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, inner(tl.load(x_ptr + at)))


@refused(inner, "outer_kernel")
def in_a_function_that_a_kernel_calls() -> None:
    """The message names the function with the line, and the kernel."""
    outer_kernel[(1,)](X, out(), 16)


@triton.jit
def break_kernel(x_ptr, out_ptr, n, N: tl.constexpr):
    for i in range(n):
        if i > 3:
            break  # <-
        tl.store(out_ptr + i, i)


@refused(break_kernel, "Break")
def leaving_a_loop() -> None:
    """break."""
    break_kernel[(1,)](X, out(), 9, 16)


@triton.jit
def half_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.exp(tl.load(x_ptr + at).to(tl.float16)))  # <-


@refused(half_kernel, "exp")
def exponential_of_half() -> None:
    """exp takes float32 and float64."""
    half_kernel[(1,)](X, out(), 16)


@triton.jit
def signs_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    tl.store(out_ptr + at, x.to(tl.int32) % x.to(tl.uint32))  # <-


@refused(signs_kernel)
def remainder_of_two_signs() -> None:
    """int32 and uint32."""
    signs_kernel[(1,)](X, out(), 16)


@triton.jit
def address_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.load(at))  # <-


@refused(address_kernel, "load")
def load_from_a_number() -> None:
    """What is no pointer."""
    address_kernel[(1,)](X, out(), 16)


@triton.jit
def branch_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    value = tl.load(x_ptr + at)
    if tl.program_id(0) == 0:  # <-
        value = tl.sum(value, axis=0)
    tl.store(out_ptr + at, value)


@refused(branch_kernel, "value")
def type_that_depends_on_a_branch() -> None:
    """A block or a number."""
    branch_kernel[(1,)](X, out(), 16)


@triton.jit
def const_kernel(x_ptr: tl.const, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    tl.store(out_ptr + at, x)
    tl.store(x_ptr + at, x)  # <-


@refused(const_kernel, "Cannot store to a constant pointer")
def store_through_const() -> None:
    """What the kernel says that it only reads."""
    const_kernel[(1,)](X, out(), 16)


@triton.jit
def const_atomic_kernel(x_ptr: tl.const, out_ptr):
    tl.atomic_add(x_ptr, 1.0)  # <-


@refused(const_atomic_kernel, "Cannot store to a constant pointer")
def atomic_operation_through_const() -> None:
    """It writes too."""
    const_atomic_kernel[(1,)](X, out())


@triton.jit
def const_branch_kernel(x_ptr: tl.const, out_ptr, n):
    pointer = x_ptr if n > 0 else out_ptr  # <-
    tl.store(out_ptr, tl.load(pointer))


@refused(const_branch_kernel, "*const fp32 or *fp32")
def const_on_one_way() -> None:
    """A pointer that may be written on the other."""
    const_branch_kernel[(1,)](X, out(), 3)


@triton.must_use_result("It only computes.")
@triton.jit
def cube(x):
    return x * x * x


@triton.jit
def unused_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    cube(x)  # <-
    tl.store(out_ptr + at, x)


@refused(unused_kernel, "The result of cube is not being used. It only computes.")
def result_that_is_not_used() -> None:
    """Of a function that says that it has to be."""
    unused_kernel[(1,)](X, out(), 16)


@triton.aggregate
class Cell:
    value: tl.tensor


@triton.jit
def field_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    cell = Cell(tl.load(x_ptr + at))
    cell.value = cell.value + 1  # <-
    tl.store(out_ptr + at, cell.value)


@refused(field_kernel, "only names can be assigned")
def field_assigned_again() -> None:
    """An aggregate's."""
    field_kernel[(1,)](X, out(), 16)


@triton.jit
def wrong_field_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    cell = Cell("value")  # <-
    tl.store(out_ptr + at, cell.value)


@refused(wrong_field_kernel, "value of Cell is a tensor")
def field_of_another_class() -> None:
    """A text for a tensor."""
    wrong_field_kernel[(1,)](X, out(), 16)


@triton.jit
def equal_cells_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    cell = Cell(tl.load(x_ptr + at))
    equal = cell == Cell(tl.load(x_ptr + at))  # <-
    tl.store(out_ptr + at, equal)


@refused(equal_cells_kernel, "Cell(fp32[16]) and Cell(fp32[16]) have no operator Eq")
def comparison_without_a_method() -> None:
    """Of two aggregates; it was one of Python's objects."""
    equal_cells_kernel[(1,)](X, out(), 16)


@triton.jit
def found_cell_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    cell = Cell(tl.load(x_ptr + at))
    found = cell in (1, cell)  # <-
    tl.store(out_ptr + at, found)


@refused(found_cell_kernel, "have no operator In")
def aggregate_in_a_tuple() -> None:
    """No class has a method for it."""
    found_cell_kernel[(1,)](X, out(), 16)


@triton.jit
def negative_cell_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    cell = -Cell(tl.load(x_ptr + at))  # <-
    tl.store(out_ptr + at, cell.value)


@refused(negative_cell_kernel, "Cell(fp32[16]) has no operator USub")
def sign_without_a_method() -> None:
    """Of an aggregate."""
    negative_cell_kernel[(1,)](X, out(), 16)


@triton.jit
def no_cell_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    empty = not Cell(tl.load(x_ptr + at))  # <-
    tl.store(out_ptr + at, empty)


@refused(no_cell_kernel, "Cell(fp32[16]) has no operator Not")
def negation_without_a_method() -> None:
    """Python calls every object true."""
    no_cell_kernel[(1,)](X, out(), 16)


@triton.jit
def true_cell_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    cell = Cell(tl.load(x_ptr + at))
    if cell:  # <-
        tl.store(out_ptr + at, cell.value)


@refused(true_cell_kernel, "Cell is an aggregate, which is neither true nor false")
def condition_of_an_aggregate() -> None:
    """Python calls every object true."""
    true_cell_kernel[(1,)](X, out(), 16)


@triton.aggregate
class Halved:
    first: tl.tensor
    second: tl.tensor

    @triton.constexpr_function
    def __init__(self, first):
        self.first = first


@triton.jit
def halved_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    halved = Halved(tl.load(x_ptr + at))  # <-
    tl.store(out_ptr + at, halved.first)


@refused(halved_kernel, "the constructor of Halved leaves out second")
def field_that_is_left_out() -> None:
    """Its constructor assigns one of two."""
    halved_kernel[(1,)](X, out(), 16)


@triton.jit
def scales_kernel(x_ptr, out_ptr):
    a = tl.full((32, 64), 0, tl.uint8)
    scale = tl.full((32, 4), 0, tl.uint8)
    other = tl.full((32, 2), 0, tl.uint8)
    tl.dot_scaled(a, scale, "e5m2", tl.trans(a), other, "e5m2")  # <-


@refused(scales_kernel, "same scale factor")
def scales_of_two_widths() -> None:
    """16 numbers to a scale on one side, 32 on the other."""
    scales_kernel[(1,)](X, out())


@triton.jit
def seed_kernel(out_ptr, seed, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.rand(seed, at))  # <-


@refused(seed_kernel, "a seed is a whole number")
def seed_that_is_no_whole_number() -> None:
    """Nor is a pointer one."""
    seed_kernel[(1,)](out(), 2.5, 16)
