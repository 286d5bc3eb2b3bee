"""What proves that Metal's numbers are right: rounding is let through, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from patcher.environment import HIGH
from patcher.tiles import backends, on_torch
from patcher.tiles.admission import comparison, machine
from patcher.tiles.admission.blocks import trials
from patcher.tiles.admission.comparison import COPIES, Undecided, compared, first_launch
from patcher.tiles.admission.copies import ALIGNMENT, MARGIN, Copy
from patcher.tiles.admission.tolerance import FACTOR
from patcher.tiles.frontend import read
from patcher.tiles.on_metal import Launcher
from patcher.tiles.program import Program
from tests.process import run_module
from tests.tiles.jit import Jit, jit, tl
from tests.tiles.test_shaken import rooted

CPU = torch.device("cpu")


@jit
def scaled(x, out, n, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(out + at, tl.load(x + at, at < n) * 3, at < n)


@jit
def copied(x, out, n, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(out + at, tl.load(x + at, at < n), at < n)


@jit
def summed(x, out, N: tl.constexpr):
    row = tl.program_id(0)
    tl.store(out + row, tl.sum(tl.load(x + row * N + tl.arange(0, N)), 0))


@jit
def normed(x, out, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    a = tl.load(x + at).to(tl.float32)
    a = tl.exp(a - tl.max(a, 0))
    tl.store(out + at, a / tl.sum(a, 0))


@jit
def doubled(x, n, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(x + at, tl.load(x + at, at < n) * 2, at < n)


@jit
def far_apart(x, stride):
    at = tl.program_id(0) * stride
    tl.store(x + at, tl.load(x + at) * 2)


@jit
def rms_normed(x, out, N: tl.constexpr, M: tl.constexpr):
    j = tl.arange(0, N)
    a = tl.load(x + tl.program_id(0) * N + j).to(tl.float32)
    square = tl.sum(tl.where(j < M, a * a, 0.0), 0)
    tl.store(out + tl.program_id(0) * N + j, a * tl.rsqrt(square / N + 1e-6))


@jit
def quantized(x, out, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    a = tl.load(x + at).to(tl.float32)
    a = a * tl.rsqrt(tl.sum(a * a, 0) / N + 1e-6)
    tl.store(out + at, tl.floor(a / tl.max(tl.abs(a), 0) * 127 + 0.5).to(tl.int8))


@jit
def thresholded(x, out, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    a = tl.load(x + at).to(tl.float32)
    a = tl.exp(a - tl.max(a, 0))
    tl.store(out + at, tl.where(a / tl.sum(a, 0) > 1e-4, a, 0.0))


@jit
def coded(x, out, N: tl.constexpr):
    """Reads out[16] where the greatest number is rounded up."""
    at = tl.arange(0, N)
    a = tl.load(x + at)
    code = tl.load(out + tl.floor(a / tl.max(tl.abs(a), 0) * 7.5 + 7.5).to(tl.int32))
    tl.store(out + at, code + tl.exp(a), at < 16)


def verdict(
    kernel: Jit, args: tuple[Any, ...], constants: dict[str, Any], change: Callable[..., None], grid: int = 2
) -> tuple[str, Copy]:
    """What is said of a back end that is torch's, but for ``change`` of the arguments behind it."""
    program = kernel.compile(*args, **constants)

    def shader(passed: Sequence[Any]) -> None:
        on_torch.run(program, (grid, 1, 1), passed, CPU)
        change(*passed)

    tensors = [each for each in args if isinstance(each, torch.Tensor)]
    return compared(program, (grid, 1, 1), args, tensors[-1:], shader)


def instead(program: Program, run: Callable[..., None], args: tuple[Any, ...], grid: int) -> str:
    """What is said of a back end that is ``run``."""
    return compared(program, (grid, 1, 1), args, args[1:2], lambda passed: run((grid, 1, 1), passed, CPU))[0]


def nothing(*_: Any) -> None:
    """Changes nothing."""


def at(place: int, by: Callable[[torch.Tensor], Any], which: int = 1) -> Callable[..., None]:
    """What changes one number."""

    def change(*passed: Any) -> None:
        passed[which][place] = by(passed[which][place])

    return change


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    made = torch.randn(shape, generator=torch.Generator().manual_seed(7)) * 8
    return made.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_two_steps_of_the_type_are_rounding_and_more_are_not(dtype: torch.dtype) -> None:
    """Where a program rounds once."""
    eps = torch.finfo(dtype).eps
    args = (numbers(128, dtype=dtype), torch.zeros(150, dtype=dtype), 100)
    assert not verdict(scaled, args, {"N": 64}, nothing)[0]
    assert not verdict(scaled, args, {"N": 64}, at(3, lambda x: x * (1 + eps)))[0]
    far = verdict(scaled, args, {"N": 64}, at(3, lambda x: x * (1 + 3 * FACTOR * eps)))[0]
    assert far.startswith(f"1 of 150 numbers of {dtype} are off, by ")


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8, torch.int8])
def test_whole_numbers_are_equal(dtype: torch.dtype) -> None:
    """By 1 is too far."""
    args = (numbers(128).to(dtype), torch.zeros(150, dtype=dtype), 100)
    assert not verdict(scaled, args, {"N": 64}, nothing)[0]
    assert verdict(scaled, args, {"N": 64}, at(3, lambda x: x + 1))[0] == f"1 of 150 numbers of {dtype} are others"


@pytest.mark.parametrize(
    "change",
    [
        at(149, lambda x: 1e-30),
        at(3, lambda x: torch.nan),
        at(3, lambda x: torch.inf),
        at(3, lambda x: -x),
        lambda x, out, n: out.zero_(),
        lambda x, out, n: out[:64].copy_(out[1:65].clone()),
    ],
)
def test_what_is_wrong_is_noticed(change: Callable[..., None]) -> None:
    """What lies behind the mask, NaN, a sign, nothing written, an index that is off by one."""
    assert verdict(scaled, (numbers(128), torch.zeros(150), 100), {"N": 64}, change)[0]


def test_nan_and_infinities_that_both_have_are_right() -> None:
    x = numbers(128)
    x[:3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    assert not verdict(scaled, (x, torch.zeros(128), 128), {"N": 64}, nothing)[0]
    assert verdict(scaled, (x, torch.zeros(128), 128), {"N": 64}, at(1, lambda x: -x))[0]


def test_sums_may_come_in_another_order() -> None:
    """One after the other, where terms cancel; and a term that is left out is noticed."""
    x, out = numbers(16, 4096), torch.zeros(16)

    def one_by_one(x: torch.Tensor, out: torch.Tensor, *_: Any) -> None:
        out.copy_(x.cumsum(1)[:, -1])

    def one_left_out(x: torch.Tensor, out: torch.Tensor, *_: Any) -> None:
        out[3] -= x[3, 5]

    assert not torch.equal(x.cumsum(1)[:, -1], x.sum(1))
    assert not verdict(summed, (x, out), {"N": 4096}, one_by_one, 16)[0]
    assert verdict(summed, (x, out), {"N": 4096}, one_left_out, 16)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_functions_are_off_by_is_let_through(dtype: torch.dtype) -> None:
    """Arguments of exp make of a step as many as they are large; of what is computed in fp64 none is refused."""
    x, out = numbers(8, 512, dtype=dtype), torch.zeros(8, 512, dtype=dtype)

    def precisely(x: torch.Tensor, out: torch.Tensor, *_: Any) -> None:
        out.copy_(x.double().softmax(1))

    def slightly_off(x: torch.Tensor, out: torch.Tensor, *_: Any) -> None:
        out.copy_((x.double() * (1.0001 if dtype == torch.float32 else 1.02)).softmax(1))

    assert not verdict(normed, (x, out), {"N": 512}, precisely, 8)[0]
    assert verdict(normed, (x, out), {"N": 512}, slightly_off, 8)[0]


DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_of_a_thousand_terms_left_out_is_noticed(dtype: torch.dtype) -> None:
    """Each number is 5e-4 too large, which in bf16 is a step of one in sixteen of them."""
    args = (numbers(64, 1024, dtype=dtype), torch.zeros(64, 1024, dtype=dtype))
    program = rms_normed.compile(*args, 1024, 1024)
    for left_out in (0, 1, 24):
        other = rms_normed.compile(*args, 1024, 1024 - left_out)
        assert bool(instead(program, partial(on_torch.run, other), args, 64)) is (left_out > 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_numbers_a_little_wrong_are_wrong(dtype: torch.dtype) -> None:
    """By 1e-4, which is a hundredth of a step of bf16."""
    args = (numbers(64, 512, dtype=dtype), torch.zeros(64, 512, dtype=dtype))

    def by(factor: float) -> Callable[..., None]:
        return lambda x, out, *_: out.copy_(x.double().softmax(1) * factor)

    assert not verdict(normed, args, {"N": 512}, by(1.0), 64)[0]
    for factor in (1.0001, 0.9999, 1.01):
        assert verdict(normed, args, {"N": 512}, by(factor), 64)[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", [normed, rms_normed, quantized, thresholded])
def test_another_rounding_is_right(kernel: Jit, dtype: torch.dtype) -> None:
    """Where it decides between two numbers as well; half as much as is tried, as other back ends are better."""
    out = torch.zeros(64, 1024, dtype=torch.int8 if kernel is quantized else dtype)
    args = (numbers(64, 1024, dtype=dtype), out)
    program = kernel.compile(*args, *([1024, 1024] if kernel is rms_normed else [1024]))
    for seed in (11, 12, 13):
        shaken = partial(on_torch.run_shaken, program)
        assert not instead(program, lambda *launch, s=seed, run=shaken: run(*launch, s, 0.5), args, 64)  # type: ignore[misc]


def test_whole_numbers_are_off_where_rounding_decides_and_nowhere_else() -> None:
    """By one, and in few places."""
    args = (numbers(64, 1024), torch.zeros(64, 1024, dtype=torch.int8))
    for change in (lambda x, out: out.add_(1), lambda x, out: out[0].add_(1), lambda x, out: out[3, :2].add_(3)):
        assert verdict(quantized, args, {"N": 1024}, change, 64)[0]


@pytest.mark.usefixtures("much_room")
def test_a_launch_has_its_effect_once() -> None:
    """In place, through two views of one storage; and the user's random numbers go on as they were."""
    whole = numbers(200)
    before, state = whole.clone(), torch.random.get_rng_state()
    wrong, copy = verdict(doubled, (whole[20:148], 100), {"N": 64}, at(0, lambda x: x * (1 + 2.0**-22), 0))
    assert not wrong
    assert torch.equal(whole, before)
    expected = before[20:148].clone()
    expected[:100] *= 2
    torch.testing.assert_close(copy.arguments[0], expected)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not launched(doubled, (whole[20:148], 100), nothing)
    before[20:120] *= 2
    assert torch.equal(whole, before)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.usefixtures("much_room")
def test_what_others_write_beside_it_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread, or the next tensor in one storage, during the comparison."""
    whole, compared = numbers(300), comparison.compared
    expected = whole.clone()

    def meanwhile(*args: Any) -> Any:
        found = compared(*args)
        whole[128:] += 1
        return found

    monkeypatch.setattr(comparison, "compared", meanwhile)
    assert not launched(doubled, (whole[:128], 128), nothing)
    expected[:128] *= 2
    expected[128:] += 1
    assert torch.equal(whole, expected)


@pytest.mark.usefixtures("much_room")
def test_a_storage_may_end_within_an_element_of_another_tensor() -> None:
    """As with bytes behind whole numbers: all of it is copied, and can be written."""
    whole = torch.zeros(515, dtype=torch.uint8)
    x, tail = whole[:512].view(torch.int32), whole[512:]
    x += torch.arange(128, dtype=torch.int32)
    assert not launched(scaled, (x, tail, 3), nothing, 1)
    assert tail.tolist() == [0, 3, 6]


@pytest.fixture
def much_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "room", lambda: 1 << 40)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_a_large_storage_is_copied_what_tensors_span(dtype: torch.dtype) -> None:
    """And a little beside it, where a mistake is noticed; through two tensors, as far as both of them go."""
    whole = numbers(1 << 20, dtype=dtype)
    before, x, out = whole.clone(), whole[300_000:300_128], whole[300_200:300_328]
    wrong, copy = verdict(scaled, (x, out, 100), {"N": 64}, nothing)
    assert not wrong
    (kept,) = copy.copies.values()
    assert 328 * dtype.itemsize <= kept.nbytes - 2 * MARGIN <= 328 * dtype.itemsize + ALIGNMENT
    expected = before[300_200:300_328].clone()
    expected[:100] = before[300_000:300_100] * 3
    assert torch.equal(copy.arguments[1], expected) and torch.equal(whole, before)

    def beside(x: torch.Tensor, out: torch.Tensor, n: int) -> None:
        out.as_strided((1,), (1,), out.storage_offset() + 128 + MARGIN // dtype.itemsize - 1).add_(1000)

    assert verdict(scaled, (x, out, 100), {"N": 64}, beside)[0].startswith("1 of ")


@pytest.mark.usefixtures("much_room")
def test_of_a_large_storage_all_is_copied_where_a_kernel_goes_beyond_its_tensors() -> None:
    """As with the first element of a row for a pointer, and the rows' stride for a number."""
    whole = numbers(1 << 20)
    before = whole.clone()
    wrong, copy = verdict(far_apart, (whole[:1], 400_000), {}, nothing, 3)
    assert not wrong
    (kept,) = copy.copies.values()
    assert kept.nbytes == whole.nbytes
    expected = before.clone()
    expected[:800_001:400_000] *= 2
    assert torch.equal(copy.arguments[0].as_strided((1 << 20,), (1,), 0), expected) and torch.equal(whole, before)


def launched(kernel: Jit, args: tuple[Any, ...], change: Callable[..., None], grid: int = 2) -> str:
    """What a first launch says, of a shader as in `verdict`."""
    program = kernel.compile(*args, N=64)

    def launch(grid: tuple[int, int, int], passed: Sequence[Any]) -> None:
        on_torch.run(program, grid, passed, CPU)
        change(*passed)

    tensors = [each for each in args if isinstance(each, torch.Tensor)]
    launcher: Any = SimpleNamespace(written=lambda passed: tensors[-1:], launch=launch)
    return first_launch(program, launcher, (grid, 1, 1), args)


@pytest.mark.usefixtures("much_room")
def test_of_wrong_numbers_none_is_kept() -> None:
    x = numbers(128)
    before = x.clone()
    assert launched(doubled, (x, 128), lambda x, n: x.zero_())
    assert torch.equal(x, before)
    assert not launched(doubled, (x, 128), nothing)
    assert torch.equal(x, before * 2)


def raising(error: Exception) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


@pytest.mark.usefixtures("much_room")
@pytest.mark.parametrize(
    "error", [RuntimeError("MPS backend out of memory"), torch.OutOfMemoryError(), TypeError("no")]
)
@pytest.mark.parametrize("where", ["shader", "torch", "copies", "comparison"])
def test_whatever_fails_decides_nothing(monkeypatch: pytest.MonkeyPatch, where: str, error: Exception) -> None:
    """And changes nothing: torch operators alone may go through."""
    x = numbers(128)
    before, change = x.clone(), raising(error) if where == "shader" else nothing
    target = {"torch": "on_torch.run_counted", "copies": "Copy", "comparison": "difference"}.get(where)
    if target:
        monkeypatch.setattr(f"patcher.tiles.admission.comparison.{target}", raising(error))
    with pytest.raises(Undecided, match=rf"^it could not be compared with torch: {str(error) or 'OutOfMemoryError'}$"):
        launched(doubled, (x, 128), change)
    assert torch.equal(x, before)


@pytest.mark.usefixtures("much_room")
@pytest.mark.parametrize(
    ("kernel", "why"), [(coded, "reads or writes outside of its tensors"), (rooted, "does not end within")]
)
def test_where_no_rounding_can_be_tried_nothing_is_decided(kernel: Jit, why: str) -> None:
    """It leaves its tensors with another one, or does not end; what is right to two steps is right."""
    x, out = numbers(64), torch.arange(64.0 if kernel is rooted else 16.0)
    x[0], before = -40.0, out.clone()
    with pytest.raises(Undecided, match=f"^it is off, and what rounding does to it cannot be tried: .*{why}"):
        launched(kernel, (x, out), at(3, lambda x: x * (1 + 1e-5)), 1)
    assert torch.equal(out, before)
    assert not launched(kernel, (x, out), nothing, 1)
    assert not torch.equal(out, before)


@jit
def added(x, y, out, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(out + at, tl.load(out + at) + tl.load(x + at) * tl.load(y + at))


@jit
def filled(x, out, N: tl.constexpr):
    tl.store(out + tl.program_id(0), tl.sum(tl.load(x + tl.arange(0, N)), 0))


@pytest.mark.usefixtures("much_room")
def test_zeros_and_nan_prove_nothing() -> None:
    """As LoRA's B at first; nor does the one number that something makes of them, or a launch without elements."""
    x, zeros, out = numbers(128), torch.zeros(128), numbers(128)
    ones = torch.ones(128)
    for kernel, args, grid in (
        (added, (x, zeros, out), 2),
        (added, (x, x, torch.full((128,), torch.nan)), 2),
        (added, (x, torch.full((128,), torch.inf), out), 2),
        (added, (ones, ones, zeros), 2),
        (scaled, (zeros, torch.ones(128), 100), 2),
        (scaled, (zeros[:0], zeros[:0], 0), 2),
        (filled, (zeros, ones[:1].clone()), 1),
    ):
        before = [each.clone() for each in args if isinstance(each, torch.Tensor)]
        with pytest.raises(Undecided, match="one number again and again"):
            launched(kernel, args, nothing, grid)
        for a, b in zip(args, before, strict=False):
            torch.testing.assert_close(a, b, equal_nan=True, rtol=0, atol=0)
    assert not launched(filled, (x, ones[:1].clone()), nothing, 1)
    assert not launched(added, (x, x, out), nothing)


@jit
def cleared(out, n, value, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(out + at, tl.full((N,), 0, tl.float32) + value, at < n)


@pytest.mark.usefixtures("much_room")
def test_a_kernel_that_reads_nothing_proves_where_it_writes() -> None:
    """One number everywhere, also the one that is there; not where a number that is 0 makes it."""
    out = torch.full((128,), 2.5)
    out[100:] = 7
    assert not launched(cleared, (out, 100, 2.5), nothing)
    assert (out[:100] == 2.5).all() and (out[100:] == 7).all()
    for wrong in (lambda out, *_: out[90:].fill_(2.5), lambda out, *_: out[0].fill_(2)):
        before = out.clone()
        assert launched(cleared, (out, 100, 2.5), wrong)
        assert torch.equal(out, before)
    with pytest.raises(Undecided, match="one number again and again"):
        launched(cleared, (out, 100, 0.0), nothing)


@pytest.mark.usefixtures("much_room")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_what_stands_there_already_is_told_from_what_is_not_written(dtype: torch.dtype) -> None:
    """A launch that is repeated changes nothing; a shader that writes nothing is wrong all the same."""
    x = (numbers(128) > 0).to(dtype) if dtype == torch.bool else numbers(128)
    out = x if dtype == torch.bool else x * 3
    kernel, out = (copied, out.clone()) if dtype == torch.bool else (scaled, out.clone())
    before = out.clone()
    assert not launched(kernel, (x, out, 100), nothing)
    assert torch.equal(out, before)
    left: Any = SimpleNamespace(written=lambda passed: passed[1:2], launch=nothing)
    assert first_launch(kernel.compile(x, out, 100, N=64), left, (2, 1, 1), (x, out, 100))


def test_yes_and_no_prove_something_together() -> None:
    """A mask in a tensor of zeros has changed in one way only."""
    for changed, told in ((0, False), (3, True), (8, False)):
        flags = torch.zeros(8, dtype=torch.bool)
        copy = Copy([flags], [flags])
        copy.written[0][:changed] = True
        assert copy.tells() is told


def test_room_is_what_the_limit_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's, where it is below what Metal recommends."""
    monkeypatch.setattr("torch.mps.recommended_max_memory", lambda: 1000)
    monkeypatch.setattr("torch.mps.current_allocated_memory", lambda: 300)
    for ratio, room in ((None, 700), ("1.7", 700), ("0.5", 200), ("0", 700)):
        if ratio is None:
            monkeypatch.delenv(HIGH, raising=False)
        else:
            monkeypatch.setenv(HIGH, ratio)
        assert comparison.room() == room


# -- which launches are compared ---------------------------------------------------------------------------------------


@pytest.fixture
def shader(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Launches on mps have one shader, which does nothing; it is compared by what is put into ``said``."""
    launcher: Any = Launcher.__new__(Launcher)
    launcher.widest, launcher.launched, launcher.said, launcher.compared = 1 << 20, [], "", []
    launcher.launch = lambda grid, arguments: launcher.launched.append(grid)

    def first(program: Program, launcher: Any, grid: tuple[int, int, int], arguments: Any) -> str:
        launcher.compared.append(grid)
        if isinstance(launcher.said, Exception):
            raise launcher.said
        return str(launcher.said)

    monkeypatch.setattr("patcher.tiles.backends.why_not", lambda device: "")
    monkeypatch.setattr("patcher.tiles.on_metal.launcher_of", lambda *_: launcher)
    monkeypatch.setattr("patcher.tiles.admission.first_launch", first)
    return launcher


def run(grid: tuple[int, int, int]) -> tuple[bool, bool]:
    """Whether torch operators ran a launch, and whether it was one of a shader."""
    x = torch.ones(1 << 10)
    program = doubled.compile(x, 1 << 10, N=64)
    launcher = backends.run(program, grid, (x, 1 << 10), CPU)
    return bool(x[0] == 2), launcher is not None


def test_wider_grids_are_compared_as_first_launches_are(shader: Any) -> None:
    """Along each axis, until they are twice as wide as what was."""
    grids = [(1, 1, 1), (1, 1, 1), (2, 1, 1), (3, 1, 1), (4, 1, 1), (4, 2, 1), (4, 1, 5), (4, 2, 5), (2, 2, 2)]
    for grid in grids:
        assert run(grid) == (False, True)
    assert shader.compared == [(1, 1, 1), (2, 1, 1), (3, 1, 1), (4, 2, 1), (4, 1, 5)]
    assert shader.launched == [(1, 1, 1), (4, 1, 1), (4, 2, 5), (2, 2, 2)]
    shader.said = "all of it is wrong"
    assert run((16, 1, 1)) == (True, False)
    assert not shader.admits((1, 1, 1))


def test_the_undecided_are_compared_ever_less_often(shader: Any) -> None:
    """Torch operators run meanwhile, and the account says why."""
    shader.said = Undecided("there is no room")
    backends.launches.clear()
    for _ in range(20):
        assert run((2, 1, 1)) == (True, False)
    assert len(shader.compared) == 5
    told = {launched.why: count for launched, count in backends.launches.items()}
    assert told == {"there is no room": 5, "its shader has not proved right yet": 15}
    shader.said = ""
    assert [run((2, 1, 1))[1] for _ in range(13)] == [False] * 11 + [True] * 2


def test_a_kernel_is_warned_of_once(shader: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever variants of it are wrong."""
    backends._warned.clear()
    shader.said = "all of it is wrong"
    for _ in range(4):
        run((2, 1, 1))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize(("room", "decided"), [(COPIES * 512, True), (COPIES * 512 - 1, False)])
def test_without_room_for_copies_nothing_runs(monkeypatch: pytest.MonkeyPatch, room: int, decided: bool) -> None:
    """The next launch may have it."""
    x = numbers(128)
    before = x.clone()
    monkeypatch.setattr(comparison, "room", lambda: room)
    if decided:
        assert not launched(doubled, (x, 128), nothing)
        assert torch.equal(x, before * 2)
        return
    with pytest.raises(
        Undecided, match=rf"^there is no room for {COPIES} copies of the 512 bytes that it writes into$"
    ):
        launched(doubled, (x, 128), nothing)
    assert torch.equal(x, before)


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_what_is_right_is_kept_and_what_cannot_be_read_is_not(tmp_path: Path) -> None:
    """Whole or not at all; in the place of half a file a new one is written."""
    place = tmp_path / "kept" / "one.json"
    assert not machine.is_kept(place)
    machine.keep(place, ["sorting"])
    assert machine.is_kept(place)
    for text in ("", '["sorting"', "[]", "{}", "[3]", "\0"):
        place.write_text(text)
        assert not machine.is_kept(place)
    machine.keep(place, ["sorting"])
    assert machine.is_kept(place)
    assert [path.name for path in place.parent.iterdir()] == ["one.json"]


def test_few_files_are_kept(tmp_path: Path) -> None:
    for number in range(machine.MOST_KEPT + 3):
        machine.keep(tmp_path / f"{number}.json", ["sorting"])
    assert len(list(tmp_path.iterdir())) == machine.MOST_KEPT


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    machine.keep(tmp_path / "file" / "one.json", ["sorting"])


def test_a_full_disk_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not half a file either."""
    monkeypatch.setattr("patcher.kept.os.replace", raising(OSError(28, "No space left on device")))
    machine.keep(tmp_path / "one.json", ["sorting"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), RuntimeError("no memory")])
def test_what_could_not_be_tried_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """Torch runs this process's kernels, and the next one tries again."""
    monkeypatch.setattr(machine, "folder", lambda: tmp_path)
    monkeypatch.setattr(machine, "key", lambda: "key")
    monkeypatch.setattr(machine, "tried_one", raising(error))
    caplog.set_level("INFO")
    assert machine.why_not.__wrapped__() == "masks and arithmetic of torch.float32 could not be tried: no memory"
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(machine, "tried_one", lambda trial: "")
    assert machine.why_not.__wrapped__() == ""


def test_trials_have_names_of_their_own() -> None:
    names = [trial.name for trial in trials()]
    assert len(names) == len(set(names)) > 20


def test_trials_tell_something() -> None:
    """What each writes differs from number to number, and from what was there."""
    for trial in trials():
        copy = Copy(trial.args, [each for each in trial.args if isinstance(each, torch.Tensor)])
        program = read(trial.kernel, machine.specs(trial))
        on_torch.run(program, trial.grid, copy.arguments, CPU)
        assert copy.tells(), trial.name


# -- on the simulated Mac ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_on_the_simulated_mac(tmp_path: Path) -> None:
    """All trials are right there; a back end with a fault is refused by a trial and by the first launch of a kernel."""
    found = json.loads(run_module("tests.tiles.admitted", tmp_path).stdout)
    assert found["with a fault"].startswith("Metal gives other numbers on this Mac than torch on the CPU: masks and ")
    assert found["with a fault"].count(": ") < 8
    assert not found["kept with a fault"]
    assert found["without"] == found["again"] == ""
    assert all(found["faults in trials"].values()), found["faults in trials"]
    for fault, (launched, right) in found["faults in launches"].items():
        assert right, fault
        assert [back_end for back_end, _ in launched] == ["torch", "torch"], fault
        assert launched[0][1].startswith("as a shader it gave other numbers than with torch: "), fault
    assert found["without faults"] == [[["metal", ""], ["metal", ""]], True]
    torch_ran, metal_ran = ["torch", True], ["metal", True]
    assert found["zeros first"] == [torch_ran] * 4
    assert found["zeros first, without"] == [torch_ran, metal_ran, metal_ran]
    assert found["a few programs first"] == [metal_ran, metal_ran, torch_ran, torch_ran]
    ((back_end, why),), freed = found["with little memory"]
    assert back_end == "torch" and why.startswith("it could not be compared with torch: MPS backend out of memory ")
    assert freed
