"""What first launches tell is kept for other processes, and no more is trusted than in one."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from patcher import kept, surroundings
from patcher.errors import InvalidSwitch
from patcher.tiles import backends
from patcher.tiles.admission.verdicts import MOST_KEPT, Verdict, keep, key, recall
from patcher.tiles.on_metal import Launcher
from tests.process import run_module
from tests.tiles.jit import jit, tl

CPU = torch.device("cpu")
HERE = ("Apple M1", "macOS-15.5", "2.14.0")


@jit
def doubled(x, n, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(x + at, tl.load(x + at, at < n) * 2, at < n)


@jit
def tripled(x, n, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(x + at, tl.load(x + at, at < n) * 3, at < n)


X = torch.ones(1 << 10)
PROGRAM = doubled.compile(X, 1 << 10, N=64)


def launcher(**changed: Any) -> Any:
    """A shader that does nothing, as a new process has it, and what was launched of it."""
    made: Any = Launcher.__new__(Launcher)
    made.overlapping = changed.pop("overlapping", False)
    made.shader = SimpleNamespace(**{"name": "tile", "source": "kernel void tile() {}", "threads": 64, **changed})
    made.widest, made.launched = 1 << 20, []
    made.launch = lambda grid, arguments: made.launched.append(grid)
    return made


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where verdicts are kept meanwhile, on a machine that is none."""
    monkeypatch.setenv("PATCHER_TRITON_CACHE", "1")
    monkeypatch.setenv("PATCHER_CACHE", str(tmp_path))
    monkeypatch.setattr(surroundings, "machine", lambda: HERE)
    return tmp_path / "triton-shaders"


def admitted(grid: tuple[int, int, int]) -> Any:
    """A shader that has proved right for this grid, and of which that is kept."""
    found = launcher()
    found.admit(grid)
    keep(PROGRAM, found)
    return found


def test_what_is_kept_is_known_to_the_next_process() -> None:
    """How far it has proved right, or what is wrong with it."""
    assert recall(PROGRAM, launcher()) == Verdict()
    admitted((3, 2, 1))
    assert recall(PROGRAM, launcher()) == Verdict((3, 2, 1))
    keep(PROGRAM, launcher(), "all of it")
    assert recall(PROGRAM, launcher()) == Verdict(wrong="all of it")


def test_what_is_wrong_stays_so() -> None:
    """Whatever another process found of it, before or after."""
    keep(PROGRAM, launcher(), "all of it")
    admitted((3, 2, 1))
    assert recall(PROGRAM, launcher()).wrong == "all of it"


CHANGES: dict[str, Callable[[pytest.MonkeyPatch], Any]] = {
    "the torch version": lambda patch: patch.setattr(surroundings, "machine", lambda: (*HERE[:2], "2.14.1")),
    "macOS": lambda patch: patch.setattr(surroundings, "machine", lambda: (HERE[0], "macOS-15.6", HERE[2])),
    "the GPU": lambda patch: patch.setattr(surroundings, "machine", lambda: ("Apple M2", *HERE[1:])),
    "this package": lambda patch: patch.setattr(surroundings, "package", lambda: b"another one"),
    "a variable of Metal's": lambda patch: patch.setenv("MTL_SHADER_VALIDATION", "1"),
    "a variable of torch's": lambda patch: patch.setenv("PYTORCH_MPS_FAST_MATH", "1"),
    "a fault": lambda patch: patch.setenv("PATCHER_SIMULATE_FAULTS", "matmul"),
}


@pytest.mark.parametrize("changed", CHANGES)
def test_of_other_surroundings_nothing_is_known(monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    admitted((3, 1, 1))
    keep(tripled.compile(X, 1 << 10, N=64), launcher(), "all of it")
    CHANGES[changed](monkeypatch)
    assert recall(PROGRAM, launcher()) == recall(tripled.compile(X, 1 << 10, N=64), launcher()) == Verdict()


def test_limits_of_memory_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts set them, and no number depends on them."""
    admitted((3, 1, 1))
    monkeypatch.setenv("PYTORCH_MPS_HIGH_WATERMARK_RATIO", "0.5")
    assert recall(PROGRAM, launcher()).grid == (3, 1, 1)


def test_every_program_and_shader_has_a_key_of_its_own() -> None:
    """The program too: of two that become one shader, one at least is wrong. And tensors that lie in one another."""
    programs = [PROGRAM, tripled.compile(X, 1 << 10, N=64), doubled.compile(X, 1 << 10, N=128)]
    programs += [doubled.compile(X.half(), 1 << 10, N=64), doubled.compile(X, 1 << 40, N=64)]
    shaders: list[dict[str, Any]] = [{}, {"source": "kernel void tile() { }"}, {"threads": 128}, {"name": "other"}]
    shaders.append({"overlapping": True})
    keys = {key(program, launcher(**shader)) for program in programs for shader in shaders}
    assert len(keys) == len(programs) * len(shaders)
    assert key(doubled.compile(X, 1 << 10, N=64), launcher()) == key(PROGRAM, launcher())


def test_what_is_damaged_says_nothing(folder: Path) -> None:
    """Nor what lies there under the name of another shader; the next comparison writes it anew."""
    admitted((3, 1, 1))
    (place,) = folder.iterdir()
    whole = place.read_text()
    wide = whole.replace("3", "4", 1)
    assert wide != whole
    for text in (wide, whole[:-1], whole[: len(whole) // 2], "", "{}", "[]", "null", "\0"):
        place.write_text(text)
        assert recall(PROGRAM, launcher()) == Verdict(), text
    place.write_bytes(b"\xff\xfe")
    assert recall(PROGRAM, launcher()) == Verdict()
    place.write_text(whole)
    assert recall(PROGRAM, launcher()).grid == (3, 1, 1)
    others = launcher(source="kernel void tile() { }")
    place.rename(folder / f"{key(PROGRAM, others)}.right.json")
    assert recall(PROGRAM, others) == Verdict()
    admitted((5, 1, 1))
    assert recall(PROGRAM, launcher()).grid == (5, 1, 1)


@pytest.mark.parametrize("grid", [[3, 1], [3, 1, 0], [3, 1, True], [3, 1, 1.0], ["3", "1", "1"], "3", 3])
def test_what_is_no_grid_says_nothing(folder: Path, grid: Any) -> None:
    kept.write(folder / f"{key(PROGRAM, launcher())}.right.json", grid, MOST_KEPT)
    assert recall(PROGRAM, launcher()) == Verdict()


def test_two_processes_at_once(folder: Path) -> None:
    """What is read is whole, whoever writes meanwhile."""
    admitted((1, 1, 1))

    def write(extent: int) -> None:
        for _ in range(10):
            admitted((extent, 1, 1))

    with ThreadPoolExecutor(3) as threads:
        writers = [threads.submit(write, extent) for extent in (1, 20_000)]
        found = {recall(PROGRAM, launcher()).grid[0] for _ in range(50)}
        for writer in writers:
            writer.result()
    assert found <= {1, 20_000}
    assert len(list(folder.iterdir())) == 1


def test_few_files_are_kept(folder: Path) -> None:
    """What a killed process has left behind among them."""
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.part").write_text("")
    for number in range(5):
        kept.write(folder / f"{number}.json", number, 3)
    assert {path.name for path in folder.iterdir()} == {"2.json", "3.json", "4.json"}


def test_what_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is none, and a full disk, on which nothing is left."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "file").write_text("")
    kept.write(tmp_path / "file" / "one.json", 1, 3)
    monkeypatch.setattr("patcher.kept.os.replace", full)
    kept.write(tmp_path / "folder" / "one.json", 1, 3)
    assert not list((tmp_path / "folder").iterdir())


def test_switch(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """``PATCHER_TRITON_CACHE=0``: nothing is read and nothing written."""
    monkeypatch.setenv("PATCHER_TRITON_CACHE", "0")
    admitted((3, 1, 1))
    assert not folder.exists()
    monkeypatch.delenv("PATCHER_TRITON_CACHE")
    admitted((3, 1, 1))
    assert recall(PROGRAM, launcher()).grid == (3, 1, 1)
    monkeypatch.setenv("PATCHER_TRITON_CACHE", "0")
    assert recall(PROGRAM, launcher()) == Verdict()
    monkeypatch.setenv("PATCHER_TRITON_CACHE", "maybe")
    with pytest.raises(InvalidSwitch):
        recall(PROGRAM, launcher())


# -- launches ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """The grids that are compared."""
    grids: list[tuple[int, int, int]] = []

    def first(program: Any, launcher: Any, grid: tuple[int, int, int], arguments: Any) -> str:
        grids.append(grid)
        return str(getattr(launcher, "said", ""))

    monkeypatch.setattr("patcher.tiles.backends.why_not", lambda device: "")
    monkeypatch.setattr("patcher.tiles.admission.first_launch", first)
    return grids


def process(monkeypatch: pytest.MonkeyPatch, *grids: int, said: str = "") -> list[str]:
    """Launches of a process that knows what is kept: which back end ran each."""
    mine, ran = launcher(), []
    mine.said = said
    monkeypatch.setattr("patcher.tiles.on_metal.launcher_of", lambda *_: mine)
    for grid in grids:
        found = backends.run(PROGRAM, (grid, 1, 1), (X.clone(), 1 << 10), CPU)
        ran.append("torch" if found is None else "metal")
    return ran


def test_a_second_process_compares_nothing_again(
    monkeypatch: pytest.MonkeyPatch, compared: list[tuple[int, int, int]]
) -> None:
    """Only what is wider than anything before; and all of it with another torch."""
    assert process(monkeypatch, 2, 2, 3) == ["metal"] * 3
    assert compared == [(2, 1, 1), (3, 1, 1)]
    assert process(monkeypatch, 2, 3, 4) == ["metal"] * 3  # as grids grow, twice as wide is admitted
    assert len(compared) == 2
    assert process(monkeypatch, 5) == ["metal"]
    assert compared[2:] == [(5, 1, 1)]
    monkeypatch.setattr(surroundings, "machine", lambda: (*HERE[:2], "2.14.1"))
    assert process(monkeypatch, 2) == ["metal"]
    assert compared[3:] == [(2, 1, 1)]


def test_what_was_refused_is_refused_again(
    monkeypatch: pytest.MonkeyPatch, compared: list[tuple[int, int, int]], caplog: pytest.LogCaptureFixture
) -> None:
    """Without a comparison, with its reason and a warning in each process."""
    for _ in range(2):
        backends._warned.clear()
        backends.launches.clear()
        assert process(monkeypatch, 2, said="all of it") == ["torch"]
        ((launched, _),) = backends.launches.items()
        assert launched.why == "as a shader it gave other numbers than with torch: all of it"
    assert compared == [(2, 1, 1)]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


def test_refused_for_a_wider_grid_is_refused_for_all(
    monkeypatch: pytest.MonkeyPatch, compared: list[tuple[int, int, int]]
) -> None:
    assert process(monkeypatch, 2) == ["metal"]
    assert process(monkeypatch, 9, said="the ninth") == ["torch"]
    assert process(monkeypatch, 2) == ["torch"]
    assert compared == [(2, 1, 1), (9, 1, 1)]


@pytest.mark.slow
def test_on_the_simulated_mac(tmp_path: Path) -> None:
    """A second process takes no memory for copies, and keeps to a refusal though nothing is wrong any more."""

    def run(*arguments: str) -> dict[str, dict[str, Any]]:
        module = "tests.tiles.kept_launches"
        found: dict[str, dict[str, Any]] = json.loads(
            run_module(module, tmp_path, *arguments, PATCHER_TRITON_CACHE="1").stdout
        )
        assert all(each["right"] for each in found.values())
        return found

    first, second, wider = run("64", "spoilt"), run("64"), run("128")
    assert [found["product"]["compared"] for found in (first, second, wider)] == [1, 0, 1]
    assert [found["spoilt"]["compared"] for found in (first, second, wider)] == [1, 0, 0]
    assert [found["product"]["back end"] for found in (first, second, wider)] == ["metal"] * 3
    assert [found["spoilt"]["back end"] for found in (first, second, wider)] == ["torch"] * 3
    assert first["spoilt"]["why"] == second["spoilt"]["why"]
    assert first["product"]["B"] >= 2 * (64 << 12) and second["product"]["B"] < 1024
