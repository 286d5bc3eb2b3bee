"""What proves that Metal's numbers are right: rounding is let through, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from patcher.tiles import on_torch
from patcher.tiles.admission import comparison, machine
from patcher.tiles.admission.blocks import trials
from patcher.tiles.admission.comparison import COPIES, FACTOR, Copy, compared
from tests.process import run_module
from tests.tiles.jit import Jit, jit, tl

CPU = torch.device("cpu")


@jit
def scaled(x, out, n, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(out + at, tl.load(x + at, at < n) * 3, at < n)


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


def test_a_launch_has_its_effect_once() -> None:
    """In place, through two views of one storage; and the user's random numbers go on as they were."""
    whole = numbers(200)
    before, state = whole.clone(), torch.random.get_rng_state()
    wrong, copy = verdict(doubled, (whole[20:148], 100), {"N": 64}, at(0, lambda x: x * (1 + 2.0**-22), 0))
    assert not wrong
    assert torch.equal(whole, before)
    copy.put_back()
    expected = before.clone()
    expected[20:120] *= 2
    torch.testing.assert_close(whole, expected)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_of_wrong_numbers_torchs_are_kept() -> None:
    x = numbers(128)
    expected = x * 2
    wrong, copy = verdict(doubled, (x, 128), {"N": 64}, lambda x, n: x.zero_())
    assert wrong
    copy.put_back()
    assert torch.equal(x, expected)


@pytest.mark.parametrize(("room", "decided"), [(COPIES * 512, True), (COPIES * 512 - 1, False)])
def test_without_room_for_copies_nothing_runs(monkeypatch: pytest.MonkeyPatch, room: int, decided: bool) -> None:
    """The next launch may have it."""
    x = numbers(128)
    before, program = x.clone(), doubled.compile(x, 128, N=64)
    monkeypatch.setattr(comparison, "room", lambda: room)

    def launch(grid: tuple[int, int, int], passed: Sequence[Any]) -> None:
        on_torch.run(program, grid, passed, CPU)

    launcher: Any = SimpleNamespace(written=lambda passed: [x], launch=launch)
    if decided:
        assert not comparison.first_launch(program, launcher, (2, 1, 1), (x, 128))
        assert torch.equal(x, before * 2)
        return
    with pytest.raises(comparison.Undecided, match=r"^there is no room for 4 copies of what it writes$"):
        comparison.first_launch(program, launcher, (2, 1, 1), (x, 128))
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


def test_trials_have_names_of_their_own() -> None:
    names = [trial.name for trial in trials()]
    assert len(names) == len(set(names)) > 20


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
