"""The parts of a calibration: what each runs, and how long it may take. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patcher.calibration import sequences

Results = dict[str, dict[str, Any]]
"""What came of each case, by its name."""

ROOT = Path(__file__).resolve().parents[2]
"""The checkout, or site-packages."""


def _no_variables(case: str, device: Mapping[str, Any]) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        name: its key in the file.
        module: what its processes run: ``cases()`` names the cases, ``run(case)`` gives what came of one. Both run in
            a process that has torch and the device.
        shows: what it is about, for people.
        case_seconds: after which a case counts as hung; the first one may take `START_SECONDS` more.
        seconds: after which the part is left unfinished.
        fresh: whether each case has a process of its own.
        variables: environment variables of a case's process, from its name and what the device has answered.
        sampled: whether a sample of its cases may be asked for.
        file: where the module lies, below `ROOT`, if it is not part of the package.
    """

    name: str
    module: str
    shows: str
    case_seconds: float
    seconds: float
    fresh: bool = False
    variables: Callable[[str, Mapping[str, Any]], dict[str, str]] = _no_variables
    sampled: bool = False
    file: str | None = None

    def missing(self) -> str | None:
        """Why the part cannot run here, or None."""
        if self.file is None or (ROOT / self.file).exists():
            return None
        return (
            f"its cases are in {self.file}, which an installed package does not have: run verify_apple.py in a clone "
            "of the project"
        )


START_SECONDS = 180.0
"""For importing torch and its operator database on a cold disk."""

DEVICE = Part("device", "patcher.calibration.device", "which Mac it is", 60, 120)
"""Answers before the parts: which Mac it is, and whether its device works at all."""

PARTS = (
    Part(
        "allocator",
        "patcher.calibration.allocator",
        "memory after each step of fixed sequences",
        60,
        600,
        fresh=True,
        variables=sequences.variables,
    ),
    Part("shaders", "patcher.calibration.shaders", "what compile_shader takes and refuses", 60, 300),
    Part("hazards", "patcher.calibration.hazards", "known bugs of torch's mps backend, unpatched", 120, 600),
    Part("timings", "patcher.calibration.timings", "kernels, copies and waits", 60, 300),
    Part(
        "operators",
        "tests.fidelity.calibrated",
        "torch's operator database",
        60,
        1200,
        sampled=True,
        file="tests/fidelity/calibrated.py",
    ),
)
"""In the order in which they run: the short ones first."""

BY_NAME = {part.name: part for part in PARTS}
