"""The file of a calibration: read, written, and refused with clear words."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from patcher.calibration import record
from patcher.calibration.facts import Facts
from patcher.calibration.record import COMPLETE, PartRecord, Record
from patcher.errors import CalibrationUnusable

FACTS = Facts("Apple M1", 8, 8 * 2**30, (15, 5), "2.14.1", "3.12.1", "0.1.0", simulated=False)


def a_record() -> Record:
    """A calibration of one part."""
    part = PartRecord(cases=2, results={"a": {"outcome": "ok"}, "b": {"outcome": "FAIL"}}, state=COMPLETE, seconds=1.5)
    return Record(FACTS, {"recommended_max_memory": 5}, {"hazards": part})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """And nothing is left beside it."""
    path = tmp_path / "a.json"
    record.try_to_write(path)
    assert list(tmp_path.iterdir()) == []
    record.write(a_record(), path)
    assert record.read(path) == a_record()
    assert list(tmp_path.iterdir()) == [path]


def damaged(change: Any) -> str:
    """The file's text after a change of its data."""
    data = json.loads(a_record().to_json())
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is damaged"),
        (a_record().to_json()[:300], "is damaged"),
        ("[1, 2]", "this is no file of a calibration"),
        ('{"kind": "another"}', "this is no file of a calibration"),
        (damaged(lambda data: data.update(format=record.FORMAT + 1)), "update this project"),
        (damaged(lambda data: data.pop("facts")), "is damaged"),
        (damaged(lambda data: data["facts"].update(memory_bytes="8 GB")), "memory_bytes is '8 GB'"),
        (damaged(lambda data: data["facts"].update(macos=[15])), "macos is"),
        (damaged(lambda data: data["facts"].update(owner="somebody")), "is damaged"),
        (damaged(lambda data: data.update(parts=[])), "is damaged"),
        (damaged(lambda data: data["parts"]["hazards"].update(results=[])), "the results of hazards are no table"),
        (damaged(lambda data: data["parts"]["hazards"]["results"].update(a=3)), "the results of hazards are no table"),
        (damaged(lambda data: data["parts"]["hazards"].update(state="fine")), "hazards is 'fine'"),
        (damaged(lambda data: data["parts"]["hazards"].update(cases=3)), "hazards has 3 cases and 2 results"),
    ],
)
def test_what_is_no_calibration_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """Cut off, of something else, of a newer version, changed by hand: each says so, and names the file."""
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(CalibrationUnusable, match=words) as caught:
        record.read(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The system's own words."""
    with pytest.raises(CalibrationUnusable, match="No such file"):
        record.read(tmp_path / "a.json")
    with pytest.raises(CalibrationUnusable, match="Is a directory"):
        record.read(tmp_path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Noticed before anything is measured."""
    with pytest.raises(CalibrationUnusable, match="nothing was measured"):
        record.try_to_write(tmp_path / "none" / "a.json")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noticed before anything is measured, by trying as much as a whole file takes; later the file of before stays."""
    path = tmp_path / "a.json"
    record.write(a_record(), path)
    monkeypatch.setattr(record.os, "fsync", full)
    with pytest.raises(CalibrationUnusable, match="No space left"):
        record.try_to_write(path)
    with pytest.raises(CalibrationUnusable, match="the file is as it was"):
        record.write(dataclasses.replace(a_record(), device={}), path)
    assert record.read(path) == a_record()
    assert list(tmp_path.iterdir()) == [path]


def full(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_unfinished_parts_are_named() -> None:
    """Those that are not there among them."""
    assert "hazards" not in a_record().unfinished()
    assert {"operators", "shaders"} <= set(a_record().unfinished())
