"""``verify_apple.py --calibrate``: what is kept, what a second run adds, and what is refused before anything runs."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import platform
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import verify_apple
from patcher.calibration import command, record, runner
from patcher.calibration.facts import Facts
from patcher.calibration.parts import DEVICE, PARTS, Part
from patcher.calibration.record import COMPLETE, LEFT_OUT, UNFINISHED
from patcher.calibration.runner import NoAnswer
from tests.machines import M3_MAX
from tests.process import ROOT, run_python

FACTS = Facts("Apple M1", 8, 8 * 2**30, (15, 5), "2.14.1", "3.12.1", "0.1.0", simulated=False)
CASES = {"first": ["a", "b"], "second": ["c", "d", "e"]}
FAKES = {name: Part(name, name, "", 1, 60, sampled=True) for name in CASES}


class Scripted:
    """Stands for `runner.Cases`, and counts what ran. `at` does something at a case: raises, or nothing."""

    ran: list[str] = []  # noqa: RUF012 - one for all
    at: dict[str, BaseException] = {}  # noqa: RUF012

    def __init__(self, part: Part, simulated: Facts | None, device: Any) -> None:
        self.names = CASES[part.name]

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, case: str) -> dict[str, Any]:
        if case in self.at:
            raise self.at.pop(case)
        self.ran.append(case)
        return {"outcome": "ok"}


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[Scripted]:
    """A Mac whose parts are two short ones."""
    monkeypatch.setattr(runner, "Cases", Scripted)
    monkeypatch.setattr(runner, "ask_device", lambda _: {"facts": FACTS.to_dict(), "recommended_max_memory": 5})
    monkeypatch.setattr(command, "BY_NAME", FAKES)
    monkeypatch.setattr(record, "PARTS", tuple(FAKES.values()))
    monkeypatch.setattr(Scripted, "ran", [])
    monkeypatch.setattr(Scripted, "at", {})
    return Scripted


def calibrate(path: Path | None, **more: Any) -> tuple[int, str]:
    """The exit code and what is printed."""
    console = Console(file=io.StringIO(), width=200)
    code = command.run(command.Order(file=path, parts=tuple(FAKES), **more), console)
    return code, console.file.getvalue()  # type: ignore[attr-defined]


def states(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Of each part in the file its state and the cases that have results."""
    return {name: (part.state, list(part.results)) for name, part in record.read(path).parts.items()}


def test_a_whole_file(tmp_path: Path, scripted: type[Scripted]) -> None:
    """Every part complete; the same command again finds nothing to do."""
    path = tmp_path / "a.json"
    code, told = calibrate(path)
    assert code == 0 and "written: a.json" in told and "attach it to an issue" in told and "not whole" not in told
    assert states(path) == {"first": (COMPLETE, ["a", "b"]), "second": (COMPLETE, ["c", "d", "e"])}
    assert record.read(path).facts == FACTS and record.read(path).device == {"recommended_max_memory": 5}
    assert calibrate(path)[0] == 0
    assert scripted.ran == ["a", "b", "c", "d", "e"]


def test_the_usual_name_says_which_mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the working directory."""
    monkeypatch.chdir(tmp_path)
    assert calibrate(None)[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["calibration-M1-8GB-macOS-15.5-torch-2.14.1.json"]


def test_a_name_is_printed_as_it_is(tmp_path: Path, scripted: type[Scripted]) -> None:
    """Brackets too, which rich takes for colours."""
    path = tmp_path / "[red]a.json"
    scripted.at = {"b": KeyboardInterrupt()}
    assert "what there is, is in [red]a.json" in calibrate(path)[1]
    assert "written: [red]a.json" in calibrate(path)[1]


def test_the_file_of_a_simulated_mac_is_not_asked_for(tmp_path: Path) -> None:
    """It tells nothing that is not known; what can be done with it is said."""
    told = calibrate(tmp_path / "a.json", simulated=dataclasses.replace(FACTS, simulated=True))[1]
    assert "attach" not in told and "--against" in told


def test_ctrl_c_keeps_what_there_is(tmp_path: Path, scripted: type[Scripted]) -> None:
    """130, the finished cases are in the file, and the same command runs the others only."""
    path = tmp_path / "a.json"
    scripted.at = {"d": KeyboardInterrupt()}
    code, told = calibrate(path)
    assert code == 130 and "the same command goes on" in told
    assert states(path) == {"first": (COMPLETE, ["a", "b"]), "second": (UNFINISHED, ["c"])}
    assert calibrate(path)[0] == 0
    assert states(path)["second"] == (COMPLETE, ["c", "d", "e"])
    assert scripted.ran == ["a", "b", "c", "d", "e"]


def test_a_part_that_fails_costs_no_other(tmp_path: Path, scripted: type[Scripted]) -> None:
    """It is unfinished, with the reason; the next run tries again."""
    path = tmp_path / "a.json"
    scripted.at = {"b": NoAnswer("crashed", "ended by signal 9")}
    assert calibrate(path)[0] == 0
    assert states(path) == {"first": (UNFINISHED, ["a"]), "second": (COMPLETE, ["c", "d", "e"])}
    assert record.read(path).parts["first"].why == "ended by signal 9"
    calibrate(path)
    assert states(path)["first"] == (COMPLETE, ["a", "b"]) and record.read(path).parts["first"].why == ""


def test_a_part_that_takes_too_long_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it has, and the next part runs."""
    path = tmp_path / "a.json"
    monkeypatch.setitem(FAKES, "first", dataclasses.replace(FAKES["first"], seconds=-1))
    assert calibrate(path)[0] == 0
    assert states(path) == {"first": (UNFINISHED, []), "second": (COMPLETE, ["c", "d", "e"])}
    assert "the same command goes on" in record.read(path).parts["first"].why


def test_an_installed_package_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operators need a clone; the other parts run."""
    path = tmp_path / "a.json"
    monkeypatch.setitem(FAKES, "first", dataclasses.replace(FAKES["first"], file="tests/not/there.py"))
    code, told = calibrate(path)
    assert code == 0 and "run verify_apple.py in a clone of the project" in told
    assert states(path) == {"first": (LEFT_OUT, []), "second": (COMPLETE, ["c", "d", "e"])}


def test_a_sample_is_no_whole_part(tmp_path: Path, scripted: type[Scripted]) -> None:
    """Every second case; a run without it adds the others."""
    path = tmp_path / "a.json"
    assert "not whole yet: first, second; the same command" in calibrate(path, sample=2)[1]
    assert states(path) == {"first": (UNFINISHED, ["a"]), "second": (UNFINISHED, ["c", "e"])}
    calibrate(path)
    assert scripted.ran == ["a", "c", "e", "b", "d"]


def test_the_file_of_another_mac_is_left_alone(tmp_path: Path, scripted: type[Scripted]) -> None:
    """2, and nothing is measured; nor over a file that is none of ours."""
    path = tmp_path / "a.json"
    record.write(record.Record(dataclasses.replace(FACTS, torch="2.13.0"), {}), path)
    before = path.read_text()
    code, told = calibrate(path)
    assert code == 2 and "torch 2.13.0" in told and path.read_text() == before
    path.write_text("my diary")
    code, told = calibrate(path)
    assert code == 2 and "is damaged" in told and path.read_text() == "my diary"
    assert scripted.ran == []


def test_what_cannot_be_written_is_said_first(tmp_path: Path, scripted: type[Scripted]) -> None:
    """2 before a case has run; a disk that is full later ends it with 1, and the file of before is whole."""
    code, told = calibrate(tmp_path / "none" / "a.json")
    assert code == 2 and "nothing was measured" in told and scripted.ran == []


def test_a_disk_that_is_full_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1, and the file is the one of the last part that could be written."""
    path, write = tmp_path / "a.json", record.write

    def write_one_part(found: record.Record, to: Path) -> None:
        if len(found.parts) > 1:
            monkeypatch.setattr(record.os, "fsync", full)
        write(found, to)

    monkeypatch.setattr(record, "write", write_one_part)
    code, told = calibrate(path)
    assert code == 1 and "No space left" in told
    assert states(path) == {"first": (COMPLETE, ["a", "b"])}


def test_ctrl_c_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripted: type[Scripted]) -> None:
    """1, with the disk's words, and the file of before is whole."""
    path = tmp_path / "a.json"
    calibrate(path, sample=2)
    before = path.read_text()
    scripted.at = {"b": KeyboardInterrupt()}
    monkeypatch.setattr(record, "try_to_write", lambda _: None)
    monkeypatch.setattr(record.os, "fsync", full)
    code, told = calibrate(path)
    assert code == 1 and "No space left" in told and path.read_text() == before


def full(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_device_that_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1, with the device's words; no file is made."""

    def no_device(_: object) -> dict[str, Any]:
        raise NoAnswer("raised", "RuntimeError: MPS backend out of memory")

    monkeypatch.setattr(runner, "ask_device", no_device)
    code, told = calibrate(tmp_path / "a.json")
    assert code == 1 and "does not work: RuntimeError: MPS backend out of memory" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--calibrate", "--full"),
        ("--calibrate", "--json"),
        ("--calibrate", "--group", "system"),
        ("--part", "shaders"),
        ("--sample", "5"),
        ("--calibrate", "--sample", "0"),
        ("--calibrate", "a.json", "--part", "nothing"),
    ],
)
def test_options_that_do_not_belong_together(arguments: tuple[str, ...]) -> None:
    """2, as for every wrong option."""
    with pytest.raises(SystemExit) as left:
        verify_apple.main(arguments)
    assert left.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "parts", "file", "sample"),
    [
        (("--calibrate",), tuple(part.name for part in PARTS), None, 1),
        (("--calibrate", "a.json", "--part", "shaders", "--sample", "7"), ("shaders",), Path("a.json"), 7),
    ],
)
def test_on_a_mac_the_real_device_is_measured(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], parts: tuple[str, ...], file: Path | None, sample: int
) -> None:
    """Nothing is simulated where nobody asks for it."""
    orders: list[command.Order] = []
    monkeypatch.delenv("UNSLOTH_SIMULATE_MAC", raising=False)
    monkeypatch.setattr(verify_apple.machine, "detect", lambda _: M3_MAX)
    monkeypatch.setattr(verify_apple.command, "run", lambda order, console: orders.append(order) or 0)
    assert verify_apple.main(arguments) == 0
    assert orders == [command.Order(file, parts, sample, simulated=None)]


@pytest.mark.slow
def test_a_real_mac_needs_no_simulator() -> None:
    """Neither the command nor any part imports it where none is asked for."""
    modules = [part.module for part in (DEVICE, *PARTS)]
    code = (
        "import importlib, sys, verify_apple\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "assert not [name for name in sys.modules if name.startswith('patcher.simulator')]\n"
    )
    run_python("-c", code)


def test_each_part_is_a_module() -> None:
    """That exists, in the package or beside it; and none has a name twice."""
    for part in PARTS:
        file = ROOT / (part.file or f"{part.module.replace('.', '/')}.py")
        assert file.is_file() and part.missing() is None
        assert part.module.replace(".", "/") in str(file)
    assert len({part.name for part in PARTS}) == len(PARTS)


PERSONAL = re.compile(
    r"(?<![\w.:])(?:/[\w.@ -]+){2,}"  # a path
    r"|[A-Z]:\\"
    r"|\b(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\b"  # of a network card
    r"|\b\d{1,3}(?:\.\d{1,3}){3}\b"
    r"|\b[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}\b"
    r"|[\w.]+@[\w.]+\.\w+"
)
"""What may tell whose a Mac is: paths, addresses of networks and of people, numbers of hardware."""


@pytest.mark.parametrize("text", ["/Users/ada/x", "in C:\\ada", "00:1b:63:84:45:e6", "192.168.0.7", "ada@example.org"])
def test_the_search_for_what_is_personal_finds_it(text: str) -> None:
    """So that finding nothing says something."""
    assert PERSONAL.search(text)


@pytest.mark.slow
def test_a_real_file_has_nothing_personal(tmp_path: Path) -> None:
    """All kinds of results, made in a process of a user with a name, a home and a folder; and it can be read."""
    home = tmp_path / "ada-lovelace"
    home.mkdir()
    path = home / "mine.json"
    variables = {"HOME": str(home), "USER": "ada-lovelace", "LOGNAME": "ada-lovelace"}
    cache = os.environ.get("PATCHER_CACHE") or str(Path.home() / ".cache" / "patch-for-mac")
    done = run_python(
        *(ROOT / "verify_apple.py", "--calibrate", path, "--simulate", "M1 8GB", "--sample", "400"),
        *("--part", "shaders", "--part", "operators"),
        cwd=home,
        **variables,
        PATCHER_CACHE=cache,
    )
    assert "written: mine.json" in done.stdout
    text = path.read_text()
    found = record.read(path)
    assert found.parts["shaders"].state == COMPLETE and len(found.parts["operators"].results) > 10
    assert str(found.facts).startswith("simulated Apple M1, 8 GPU cores, 8 GB, macOS 15.5, torch 2.14.1, Python")
    assert PERSONAL.findall(text) == []
    for secret in ("ada-lovelace", str(ROOT), platform.node()):
        assert not re.search(rf"\b{re.escape(secret)}\b", text), secret
    assert json.loads(text)["facts"].keys() == {field.name for field in dataclasses.fields(Facts)}
