"""Runs cases in two processes, one patched and one not, and compares what came of them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path

import tomllib

from patcher.simulator.rules.tables import FALLBACK
from tests.process import run_python
from tests.same_torch.cases import Case

LIST = Path(__file__).with_name("differences.toml")
RUNS = 5
"""Of a case that differs: a result of torch alone that changes from process to process is no result of the patches."""

Outcome = tuple[str, ...]
"""A digest of each result, and last the exception that ended the case, if one did."""


@dataclass(frozen=True)
class Difference:
    """A case of which no patched run gave what an unpatched run gave."""

    case: Case
    bare: Outcome
    patched: Outcome

    def __str__(self) -> str:
        pairs = list(zip(self.bare, self.patched, strict=False))
        place = next((n for n, (one, other) in enumerate(pairs) if one != other), len(pairs))
        found = [part[place] if place < len(part) else "no result" for part in (self.bare, self.patched)]
        return f"{self.case}: result {place + 1} is {found[1]!r} with the patches and {found[0]!r} without"


def every_case() -> list[Case]:
    """Every case of the installed torch."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "cases")
        _start(file, patched=False, cases=(), limit=None)
        return [Case(*json.loads(line)) for line in file.read_text().splitlines()]


def run(cases: Iterable[Case], *, patched: bool, limit: int | None = None) -> dict[Case, Outcome]:
    """What comes of each case, in a process that is replaced where a case brings it down."""
    left, found = list(cases), {}
    with tempfile.TemporaryDirectory() as folder:
        while left:
            file = Path(folder, "outcomes")
            code = _start(file, patched=patched, cases=left, limit=limit)
            outcomes = [json.loads(line)[1:] for line in file.read_text().splitlines()]
            found.update({case: tuple(outcome) for case, outcome in zip(left, outcomes, strict=False)})
            left = left[len(outcomes) :]
            if left:
                found[left.pop(0)] = (f"the process ended with code {code}",)
    return found


def _start(file: Path, *, patched: bool, cases: Iterable[Case], limit: int | None) -> int:
    mode, limits = "patched" if patched else "bare", [] if limit is None else [str(limit)]
    lines = "".join(json.dumps(astuple(case)) + "\n" for case in cases)
    worker = ("-m", "tests.same_torch.worker", mode, file, *limits)
    done = run_python(*worker, stdin=lines, timeout=None, check=False, **{FALLBACK: "0"})
    if not file.exists():
        raise RuntimeError(f"no case was run: {done.stderr[-4000:]}")
    return done.returncode


def differences(cases: list[Case], limit: int | None = None) -> list[Difference]:
    """The cases whose results differ in every one of `RUNS` runs of each."""
    bare, patched = ({case: [] for case in cases} for _ in range(2))
    doubtful = cases
    for _ in range(RUNS):
        if not doubtful:
            break
        for seen, is_patched in ((bare, False), (patched, True)):
            for case, outcome in run(doubtful, patched=is_patched, limit=limit).items():
                seen[case].append(outcome)
        doubtful = [case for case in doubtful if not set(bare[case]) & set(patched[case])]
    return [Difference(case, bare[case][0], patched[case][0]) for case in doubtful]


def listed(path: Path = LIST) -> dict[str, str]:
    """The cases that may differ, as text, and the reason of each. Raises ValueError where one has none."""
    reasons: dict[str, str] = {}
    for entry in tomllib.loads(path.read_text()).get("difference", []):
        if not entry["reason"].strip():
            raise ValueError(f"{entry['cases']}: a reason is missing")
        reasons.update(dict.fromkeys(entry["cases"], entry["reason"]))
    return reasons
