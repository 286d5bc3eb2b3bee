"""The file of a calibration: what is in it, how it is read, and how it is kept. Imports no torch."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patcher.calibration.facts import Facts
from patcher.calibration.parts import PARTS, Results
from patcher.errors import CalibrationUnusable, compose

KIND = "patch-for-mac calibration"
FORMAT = 1
"""Raised when a reader of before would misunderstand what is written now."""

ROOM = 4 * 2**20
"""Bytes that a whole file may take; so much is tried before the first part runs."""

COMPLETE, UNFINISHED, LEFT_OUT = "complete", "unfinished", "left out"


@dataclass
class PartRecord:
    """What came of a part.

    Attributes:
        cases: how many it has; 0 until its process has named them.
        results: of the cases that have run.
        state: ``"complete"``, ``"unfinished"`` or ``"left out"``.
        why: why it is not complete.
        seconds: that it took.
    """

    cases: int = 0
    results: Results = field(default_factory=dict)
    state: str = UNFINISHED
    why: str = ""
    seconds: float = 0.0


@dataclass
class Record:
    """A calibration.

    Attributes:
        facts: the Mac.
        device: what its device has answered beside these.
        parts: by name, those that were begun.
    """

    facts: Facts
    device: dict[str, Any]
    parts: dict[str, PartRecord] = field(default_factory=dict)

    def unfinished(self) -> list[str]:
        """Names of the parts, of all that there are, that are not complete."""
        return [part.name for part in PARTS if self.parts.get(part.name, PartRecord()).state != COMPLETE]

    def to_json(self) -> str:
        """The text of the file."""
        parts = {name: {**vars(part), "seconds": round(part.seconds, 1)} for name, part in self.parts.items()}
        data = {"kind": KIND, "format": FORMAT, "facts": self.facts.to_dict(), "device": self.device, "parts": parts}
        return json.dumps(data, indent=1) + "\n"


def read(path: Path) -> Record:
    """The record in a file.

    Raises:
        CalibrationUnusable: it cannot be read, is damaged, is something else, or is of a newer version.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unusable("the file of a calibration cannot be read", path, error.strerror or str(error)) from error
    except ValueError as error:
        raise _unusable("the file of a calibration is damaged", path, f"no JSON: {error}") from error
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise _unusable("this is no file of a calibration", path, "no entry that says so")
    if data.get("format") != FORMAT:
        raise CalibrationUnusable(
            compose(
                "the file of a calibration has another format",
                target=str(path),
                expected=f"format {FORMAT}",
                found=f"format {data.get('format')}",
                run="update this project, or run verify_apple.py --calibrate again with this version",
            )
        )
    try:
        parts = {name: _part(name, part) for name, part in data["parts"].items()}
        return Record(Facts.from_dict(data["facts"]), dict(data["device"]), parts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        found = f"{type(error).__name__}: {error}"
        raise _unusable("the file of a calibration is damaged", path, found) from error


def _part(name: str, data: dict[str, Any]) -> PartRecord:
    part = PartRecord(**data)
    if part.state not in (COMPLETE, UNFINISHED, LEFT_OUT):
        raise ValueError(f"{name} is {part.state!r}")
    if not isinstance(part.results, dict) or not all(isinstance(result, dict) for result in part.results.values()):
        raise TypeError(f"the results of {name} are no table")
    if not isinstance(part.cases, int) or (part.state == COMPLETE and part.cases != len(part.results)):
        raise ValueError(f"{name} has {part.cases} cases and {len(part.results)} results")
    return part


def _unusable(headline: str, path: Path, found: str) -> CalibrationUnusable:
    return CalibrationUnusable(
        compose(headline, target=str(path), expected="what verify_apple.py --calibrate writes", found=found)
    )


def try_to_write(path: Path) -> None:
    """Finds out, before minutes are spent, whether a whole file can be written there.

    Raises:
        CalibrationUnusable: it cannot; nothing is left.
    """
    try:
        _replace(path, b" " * ROOM, keep=False)
    except OSError as error:
        raise _unwritable(path, error, "nothing was measured") from error


def write(record: Record, path: Path) -> None:
    """Puts the record into the file, whole or not at all.

    Raises:
        CalibrationUnusable: it cannot be written; the file is the one of before.
    """
    try:
        _replace(path, record.to_json().encode(), keep=True)
    except OSError as error:
        raise _unwritable(path, error, "the file is as it was after the last part that was written") from error


def _unwritable(path: Path, error: OSError, left: str) -> CalibrationUnusable:
    return CalibrationUnusable(
        compose(
            "the file of the calibration cannot be written",
            target=str(path),
            expected=f"an existing folder that can be written to, and {ROOM >> 20} MiB on its disk",
            found=error.strerror or str(error),
            left=left,
            run="python verify_apple.py --calibrate FILE, with another file",
        )
    )


def _replace(path: Path, content: bytes, *, keep: bool) -> None:
    """Writes beside the file and puts it in its place, or removes it again."""
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keep:
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
