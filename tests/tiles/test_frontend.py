"""From source to program: types, constants, control flow, and what is refused."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from patcher.errors import KernelNotSupported
from patcher.tiles import types
from patcher.tiles.check import check
from patcher.tiles.language import ConstexprFunction, constexpr
from patcher.tiles.program import Program, Value
from tests.tiles.jit import jit, tl

WIDTH = constexpr(8)
NOT_CONSTANT = 8
X = torch.float32


def kinds(program: Program) -> list[str]:
    return [op.attributes.get("fn", op.kind) for op in program.operations()]


@jit
def scale(x, n, factor, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + at, tl.load(x + at, at < n) * factor, at < n)


def test_a_program_is_typed_and_printed() -> None:
    """The text of the smallest kernel, in full: what a back end gets."""
    text = str(scale.compile(torch.float16, 100, 2.5, BLOCK=4))
    assert text.splitlines()[1:] == [
        "  %3 = program_id {axis=0}: int32",
        "  %4 = constant {value=4}: int32",
        "  %5 = mul %3, %4: int32",
        "  %6 = arange {start=0, stop=4}: int32[4]",
        "  %7 = broadcast %5: int32[4]",
        "  %8 = add %7, %6: int32[4]",
        "  %9 = broadcast %x: *fp16[4]",
        "  %10 = offset %9, %8: *fp16[4]",
        "  %11 = broadcast %x: *fp16[4]",
        "  %12 = offset %11, %8: *fp16[4]",
        "  %13 = broadcast %n: int32[4]",
        "  %14 = lt %8, %13: int1[4]",
        "  %15 = load %12, %14: fp16[4]",
        "  %16 = cast %15: fp32[4]",
        "  %17 = broadcast %factor: fp32[4]",
        "  %18 = mul %16, %17: fp32[4]",
        "  %19 = broadcast %n: int32[4]",
        "  %20 = lt %8, %19: int1[4]",
        "  %21 = cast %18: fp16[4]",
        "  store %10, %21, %20",
        "}",
    ]
    assert text.startswith("kernel tests.tiles.test_frontend.scale(%x: *fp16, %n: int32, %factor: fp32) {")


def test_operations_know_their_line() -> None:
    """Every operation names the line of the source that it comes from."""
    lines, first = inspect.getsourcelines(scale.fn)
    store = first + next(n for n, line in enumerate(lines) if "tl.store" in line)
    program = scale.compile(X, 100, 2.5, BLOCK=4)
    assert {op.line for op in program.operations() if op.kind in ("load", "store")} == {f"{__file__}:{store}"}


@pytest.mark.parametrize(
    ("a", "b", "result"),
    [
        ("int8", "int32", "int32"),
        ("int32", "uint32", "uint32"),
        ("uint8", "int16", "int16"),
        ("int64", "uint32", "int64"),
        ("int32", "fp16", "fp16"),
        ("fp16", "bf16", "fp16"),
        ("bf16", "bf16", "bf16"),
        ("bf16", "int64", "fp32"),
        ("fp16", "fp32", "fp32"),
        ("fp32", "fp64", "fp64"),
        ("int1", "int1", "int1"),
    ],
)
def test_two_tensors_meet_in_one_type(a: str, b: str, result: str) -> None:
    """Triton's rules of promotion, either way round."""
    one, two = types.DType(a), types.DType(b)
    assert types.promote(one, False, two, False).name == result == types.promote(two, False, one, False).name


def test_a_number_has_no_say_beside_its_own_kind() -> None:
    """A Python number widens a tensor only to another kind; a division of halves is done in fp32."""
    promote = types.promote
    assert promote(types.bfloat16, False, types.float32, True) == types.bfloat16
    assert promote(types.int8, False, types.int32, True) == types.int8
    assert promote(types.int8, False, types.float32, True) == types.float32
    assert promote(types.float16, False, types.float16, False, dividing=True) == types.float32
    with pytest.raises(TypeError, match="different signedness"):
        promote(types.int32, False, types.uint32, False, dividing=True)


def test_numbers_take_the_least_type_that_triton_gives_them() -> None:
    """int32, uint32, int64, uint64; fp32 unless that would lose a number's size."""
    numbers = (True, -1, 2**31, 2**32, 2**63, 1.5, float("inf"), 1e-40, 1e300)
    assert [types.type_of_number(number).name for number in numbers] == (
        ["int1", "int32", "uint32", "int64", "uint64", "fp32", "fp32", "fp64", "fp64"]
    )


def test_what_is_known_is_computed_by_python() -> None:
    """Branches on constants leave no trace, and constants fold."""

    @jit
    def kernel(x, FLAG: tl.constexpr, N: tl.constexpr = 3):
        if FLAG and N > 2:
            value: tl.constexpr = N * 2 if N == 3 else undefined  # noqa: F821
        else:
            value: tl.constexpr = undefined  # noqa: F821
        tl.static_assert(value == 6, f"{value} is not 6")
        tl.store(x, value)

    assert kinds(kernel.compile(X, FLAG=True)) == ["constant", "cast", "store"]


def test_module_constants_are_constexpr_or_refused() -> None:
    """A variable of the module could change after the program is made."""

    @jit
    def good(x):
        tl.store(x + WIDTH, 1.0)

    @jit
    def bad(x):
        tl.store(x + NOT_CONSTANT, 1.0)

    good.compile(X)
    with pytest.raises(KernelNotSupported, match="NOT_CONSTANT is a variable of the module"):
        bad.compile(X)


def test_device_functions_are_inlined_and_early_returns_become_calls() -> None:
    """Keyword arguments, defaults, constexpr and tuples go in and out."""

    @jit
    def pair(a, b, SWAP: tl.constexpr = False):
        if SWAP:
            return b, a
        return a, b

    @jit
    def early(a):
        if a > 0:
            return a
        return -a

    @jit
    def kernel(x, n):
        first, second = pair(b=n, a=1, SWAP=True)
        tl.store(x, first + second)
        tl.store(x, early(n))

    program = kernel.compile(X, 7)
    assert kinds(program).count("call") == 1 and kinds(program).count("return") == 2


def test_loops_carry_what_they_change() -> None:
    """A loop's operands and results are the names that exist before it and change in it."""

    @jit
    def kernel(x, n):
        total, kept = 0.0, 1.0
        for i in range(n):
            inner = kept * 2
            total += inner * i
        tl.store(x, total)

    (loop,) = [op for op in kernel.compile(X, 7).operations() if op.kind == "for"]
    assert len(loop.operands) == 4 and len(loop.results) == 1
    assert str(loop.results[0].type) == "fp32"


def test_static_range_is_unrolled() -> None:
    """Its index is known in every turn."""

    @jit
    def kernel(x):
        for i in tl.static_range(0, 6, 2):
            tl.store(x + i, tl.arange(0, 2**i).sum())

    assert kinds(kernel.compile(X)).count("arange") == 3


def test_constexpr_functions_run_in_python() -> None:
    """What they get and give is known."""
    double = ConstexprFunction(lambda n: n * 2)

    @jit
    def kernel(x, N: tl.constexpr):
        tl.store(x + tl.arange(0, double(N)), 0.0)

    assert any(str(v.type) == "int32[8]" for op in kernel.compile(X, N=4).operations() for v in op.results)


def test_a_program_that_breaks_its_form_is_noticed() -> None:
    """What a back end relies on is checked for every program: order, types, numbers of values."""

    @jit
    def kernel(x, n):
        total = 0.0
        for i in range(n):
            total += i
        tl.store(x, total)

    def spoilt(change: Any) -> Program:
        program = jit(kernel.fn).compile(X, 7)
        change({op.kind: op for op in program.operations()})
        return program

    def swap(ops: dict[str, Any]) -> None:
        ops["store"].operands = (ops["store"].operands[0], Value(types.float32))

    def widen(ops: dict[str, Any]) -> None:
        ops["for"].results = (Value(types.float64),)

    def lose(ops: dict[str, Any]) -> None:
        ops["map"].operands = ops["map"].operands[:1]

    for change, reason in ((swap, "not there"), (widen, "hands out"), (lose, "2 operands")):
        with pytest.raises(ValueError, match=reason):
            check(spoilt(change))


def test_sources_of_every_form() -> None:
    """Indented definitions with less indented lines in them keep their line numbers; a lambda is none."""

    # fmt: off
    @jit
    def kernel(x):
        """
Less indented.
        """
    # a comment as well
        tl.store(x, 1.0)
    # fmt: on

    line = inspect.getsourcelines(kernel.fn)[1] + 6
    assert {op.line for op in kernel.compile(X).operations()} == {f"{__file__}:{line}"}
    with pytest.raises(KernelNotSupported, match="with def"):
        jit(lambda x: tl.store(x, 1.0)).compile(X)


@jit
def circle(v):
    return circle(v + 1) * 2


def refused(fn: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(KernelNotSupported) as raised:
        jit(fn).compile(*args, **kwargs)
    assert fn.__qualname__ in str(raised.value) and __file__ in str(raised.value)
    return str(raised.value)


def test_what_the_language_lacks_is_named() -> None:
    """Kernel, file, line, construct and reason; nothing is guessed."""

    def lambdas(x):
        f = lambda a: a  # noqa: E731
        tl.store(x, f(1.0))

    def widths(x):
        tl.store(x + tl.arange(0, 12), 0.0)

    def changing(x, n):
        a = 1
        for _ in range(n):
            a = a * 1.5
        tl.store(x, a)

    def parting(x, n):
        if n > 0:
            a = 1
        tl.store(x, a)

    def exponents(x):
        tl.store(x, tl.exp(tl.load(x)))

    def leaving(x, n):
        for i in range(n):
            if i == 3:
                return
        tl.store(x, 0.0)

    def host(x):
        tl.store(x, torch.exp(tl.load(x)))

    def endless(x):
        tl.store(x, circle(tl.load(x)))

    assert "Lambda is no part" in refused(lambdas, X)
    assert "calls itself" in refused(endless, X)
    assert "no power of two" in refused(widths, X)
    assert "a is int32 before this loop and fp32" in refused(changing, X, 2)
    assert "the name a is not defined" in refused(parting, X, 2)
    assert "exp takes fp32 or fp64" in refused(exponents, torch.bfloat16)
    assert "inside a loop" in refused(leaving, X, 2)
    assert "no function of the kernel language" in refused(host, X)


def test_the_line_of_a_refusal_is_that_of_the_construct() -> None:
    """In a device function too, with the kernel's name before it."""

    @jit
    def inner(a):
        return a @ a

    def outer(x):
        tl.store(x, inner(tl.load(x)))

    line = inspect.getsourcelines(inner.fn)[1] + 2
    text = refused(outer, X)
    assert f"inner ({__file__}:{line})" in text and "a @ a" in text
