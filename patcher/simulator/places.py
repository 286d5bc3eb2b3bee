"""Where in the user's program a call came from that a Mac refuses or sends to the CPU."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from patcher.provenance import ROOTS, is_library

_OURS = f"{Path(__file__).resolve().parent.parent}/"
MOST = 50
"""Places that are kept for each kind and name; calls from further ones are counted together."""
ELSEWHERE = "elsewhere"
BACKWARD = "backward"
"""A call without a Python frame of the user's: torch's own backward thread, or a thread of a library."""


@dataclass(frozen=True)
class Sighting:
    """Calls of one kind from one place.

    Attributes:
        kind: ``"float64"``, ``"missing"``, ``"fell_back"`` or ``"refused"``.
        name: the operator, or the rule that refused.
        place: ``file:line`` of the innermost frame that belongs to no library, or `BACKWARD` or `ELSEWHERE`.
        through: ``file:line`` of the innermost frame outside torch where that is a library's, else "".
        count: number of calls.
    """

    kind: str
    name: str
    place: str
    through: str
    count: int


class Places:
    """Listens to a simulated device and remembers the places of what it refuses."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str, str, str]] = Counter()
        self._kept: Counter[tuple[str, str]] = Counter()

    def __call__(self, kind: str, name: str) -> None:
        place, through = place_of(sys._getframe().f_back)
        with self._lock:
            key = (kind, name, place, through)
            if key not in self._counts:
                if self._kept[kind, name] >= MOST:
                    key = (kind, name, ELSEWHERE, "")
                self._kept[kind, name] += 1
            self._counts[key] += 1

    def sightings(self) -> list[Sighting]:
        """What was seen so far, the most frequent first."""
        with self._lock:
            return [Sighting(*key, count) for key, count in self._counts.most_common()]

    def take(self) -> list[Sighting]:
        """What was seen since the last time; from here on everything counts anew."""
        with self._lock:
            found = [Sighting(*key, count) for key, count in self._counts.most_common()]
            self._counts.clear()
            self._kept.clear()
        return found

    def attach(self, native: Any) -> None:
        """Begins to listen."""
        native.set_witness(self)


def place_of(frame: FrameType | None) -> tuple[str, str]:
    """(the innermost place in the user's own files, the innermost one outside torch if that is a library's)."""
    place = through = ""
    while frame is not None:
        file = frame.f_code.co_filename
        if not through and not _is_torch(file) and is_library(file):
            through = f"{short(file)}:{frame.f_lineno}"
        if not is_library(file):
            place = f"{short(file)}:{frame.f_lineno}"
            break
        frame = frame.f_back
    return place or BACKWARD, through


def _is_torch(file: str) -> bool:
    return file.startswith((_OURS, "<")) or any(file.startswith(f"{root}torch/") for root in ROOTS)


def short(file: str) -> str:
    """Relative to the current folder or to the packages' folder, where the file is below one."""
    for root in (f"{Path.cwd()}/", *sorted(ROOTS, key=len, reverse=True)):
        if file.startswith(root):
            return file[len(root) :]
    return file
