"""``python -m tests.fidelity --against FILE``: a Mac like the simulated one does not differ, and a fault is found."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from patcher.calibration import record
from patcher.calibration.facts import Facts
from patcher.calibration.parts import BY_NAME
from patcher.calibration.record import COMPLETE, UNFINISHED, PartRecord, Record
from patcher.errors import CalibrationUnusable
from tests.fidelity import against, faulted
from tests.process import run_module

FACTS = Facts("Apple M1", 8, 8 * 2**30, (15, 5), "2.14.1", "3.12.1", "0.1.0", simulated=False)

SHOWN: dict[str, list[str]] = {
    "none": [],
    "baddbmm-beta-zero": ["hazards: baddbmm with beta=0"],
    "gapped-copy": ["hazards: copy into a view"],
    "layer-norm-small-variance": ["hazards: layer_norm of rows that vary little"],
    "unique-large-integers": ["hazards: unique of large integers"],
    "cat-large-output": ["operators: cat forward int64"],
    "sort-many-columns": ["operators: argsort forward float32"],
    "more threadgroup memory": ["shaders: threadgroup memory: 32772 bytes"],
    "longer tensors": ["allocator: varying lengths"],
}
"""What differs with each fault of `faulted.FAULTS`."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("against")
    run_module("tests.fidelity.faulted", folder)
    found: dict[str, Any] = json.loads((folder / "outcomes.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("fault", SHOWN)
def test_a_fault_is_found_and_nothing_else(outcomes: dict[str, Any], fault: str) -> None:
    """Of every part; without one nothing differs."""
    found = [f"{difference['part']}: {difference['case']}" for difference in outcomes[fault]["differences"]]
    assert found == SHOWN[fault]


@pytest.mark.slow
def test_every_part_is_compared(outcomes: dict[str, Any]) -> None:
    """Without a fault all of them, times among them with the model's."""
    assert outcomes.keys() == SHOWN.keys() == faulted.FAULTS.keys()
    counted = {"device": 1, **{part: len(cases) for part, cases in faulted.CASES.items()}}
    assert outcomes["none"]["compared"] == counted and faulted.CASES.keys() == BY_NAME.keys()
    times = [remark for remark in outcomes["none"]["remarks"] if remark.startswith("timings")]
    assert len(times) == 2 and all("times the model's" in line for line in times)


STEPS = [["a = 1", 256, 8388608, 5, ""], ["b = 5G", 256, 8388608, 5, "out of memory"]]


@pytest.mark.parametrize(
    ("part", "theirs", "ours", "words"),
    [
        ("operators", {"outcome": "equal"}, {"outcome": "close"}, None),
        ("operators", {"outcome": "equal"}, {"outcome": "differs"}, "passes; the simulated Mac: differs"),
        (
            "operators",
            {"outcome": "refused", "kind": "RuntimeError", "text": "a"},
            {"outcome": "refused", "kind": "RuntimeError", "text": "b"},
            None,
        ),
        (
            "operators",
            {"outcome": "refused", "kind": "RuntimeError"},
            {"outcome": "refused", "kind": "TypeError"},
            "refused (RuntimeError); the simulated Mac: refused (TypeError)",
        ),
        ("operators", {"outcome": "crashed", "text": "ended by signal 6"}, {"outcome": "equal"}, "crashed, ended by"),
        ("hazards", {"outcome": "ok", "text": "1e-7"}, {"outcome": "ok", "text": "2e-7"}, None),
        ("hazards", {"outcome": "FAIL", "text": "1"}, {"outcome": "ok"}, "FAIL, 1; the simulated Mac: ok"),
        (
            "shaders",
            {"outcome": "runs", "threads": 1024, "width": 32, "shared": 0},
            {"outcome": "runs", "threads": 896, "width": 32, "shared": 0},
            "threads 1024; the simulated Mac: 896",
        ),
        (
            "shaders",
            {"outcome": "refused", "kind": "SyntaxError", "stage": "compile", "text": "a"},
            {"outcome": "refused", "kind": "SyntaxError", "stage": "kernel", "text": "b"},
            None,
        ),
        ("allocator", {"begin": 400000, "steps": STEPS}, {"begin": 0, "steps": STEPS}, None),
        (
            "allocator",
            {"steps": STEPS},
            {"steps": [STEPS[0], ["b = 5G", 512, 8388608, 5, "out of memory"]]},
            "step 2, 'b = 5G': 256 bytes allocated, 8388608 of the driver, out of memory",
        ),
        (
            "allocator",
            {"steps": STEPS},
            {"steps": [STEPS[0], [*STEPS[1][:4], ""]]},
            "the simulated Mac: 256 bytes allocated, 8388608 of the driver (1 of 2",
        ),
        ("allocator", {"longest": 5}, {"longest": 6}, "Metal takes no buffer from 5 bytes on; the simulated Mac"),
        ("allocator", {"outcome": "hung", "text": "x"}, {"steps": STEPS}, "hung; the simulated Mac"),
    ],
)  # fmt: skip
def test_the_rule_of_each_part(part: str, theirs: dict[str, Any], ours: dict[str, Any], words: str | None) -> None:
    """Verdicts exactly and not their words; limits; the allocator's figures to the byte, but not where Metal begins."""
    found = against.RULES[part](theirs, ours)
    assert found == "" if words is None else words in found


def test_every_part_has_a_rule() -> None:
    """But times, which are not judged."""
    assert against.RULES.keys() == BY_NAME.keys() - {"timings"}


class Answering:
    """Stands for `runner.Cases`: every case ends as `result`."""

    result: dict[str, Any] = {"outcome": "ok"}  # noqa: RUF012 - a test sets it

    def __init__(self, part: Any, simulated: Facts, device: Any) -> None:
        self.names = ["one", "two", "three"]

    def __enter__(self) -> Answering:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, case: str) -> dict[str, Any]:
        return self.result


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(against.runner, "Cases", Answering)
    monkeypatch.setattr(against.runner, "ask_device", lambda _: {"recommended_max_memory": 5})


def a_record(**more: Any) -> Record:
    part = PartRecord(cases=2, results={"one": {"outcome": "ok"}, "two": {"outcome": "ok"}}, state=COMPLETE)
    return Record(FACTS, {"recommended_max_memory": 5}, {"hazards": dataclasses.replace(part, **more)})


def ended(theirs: Record, folder: Path) -> int:
    """The exit code of a comparison with a file of this record."""
    record.write(theirs, folder / "a.json")
    return against.main(folder / "a.json")


def test_exit_codes(answering: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 where nothing differs; 1 with a line for each difference; the recommended maximum is one."""
    assert ended(a_record(), tmp_path) == 0
    assert "hazards    2 cases, 0 differ" in capsys.readouterr().out
    other = a_record(results={"one": {"outcome": "FAIL", "text": "wrong"}, "two": {"outcome": "ok"}})
    other.device["recommended_max_memory"] = 6
    assert ended(other, tmp_path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("differs")] == [
        "differs: device: recommended_max_memory: 6 bytes recommended at most, 5 on the simulated Mac",
        "differs: hazards: one: FAIL, wrong; the simulated Mac: ok",
    ]


def test_a_partial_file_is_compared_as_far_as_it_goes(
    answering: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what is missing, also what this version does not know; where all is missing, it is refused."""
    partial = a_record(cases=9, state=UNFINISHED, why="more than 600 s")
    partial.parts["hazards"].results["unheard of"] = {"outcome": "ok"}
    partial.parts["telepathy"] = PartRecord()
    assert ended(partial, tmp_path) == 0
    told = capsys.readouterr().out
    assert "hazards: 3 of 9 cases, unfinished: more than 600 s" in told
    assert "hazards: 1 cases are not known here: unheard of" in told and "knows no such part" in told
    assert ended(a_record(results={}, state=UNFINISHED, why="ended with code 1"), tmp_path) == 2
    assert "there is nothing to compare with" in capsys.readouterr().err


def test_files_that_cannot_be_compared(answering: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """2, and the reason: no file, another torch than those that are simulated, a result that makes no sense."""
    assert against.main(tmp_path / "none.json") == 2
    assert "No such file" in capsys.readouterr().err
    newer = dataclasses.replace(a_record(), facts=dataclasses.replace(FACTS, torch="2.99.0"))
    assert ended(newer, tmp_path) == 2
    assert "torch 2.99.0" in capsys.readouterr().err
    assert ended(a_record(results={"one": {}, "two": {"outcome": "ok"}}), tmp_path) == 2
    assert "hazards: one" in capsys.readouterr().err


def test_the_mac_is_that_of_the_file() -> None:
    """Its chip, cores, memory and macOS, of which none may be for sale, with the known version of its torch."""
    virtual = dataclasses.replace(FACTS, chip="Apple M1 (Virtual)", memory_bytes=7 * 2**30, torch="2.14.0")
    mac = against.simulated(virtual)
    assert (mac.chip, mac.memory_bytes, mac.macos) == (virtual.chip, virtual.memory_bytes, virtual.macos)
    assert mac.torch == "2.14.1" and mac.simulated
    with pytest.raises(CalibrationUnusable, match=r"2\.12"):
        against.simulated(dataclasses.replace(FACTS, torch="2.12.0"))
