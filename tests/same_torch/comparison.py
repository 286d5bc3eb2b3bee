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

    @property
    def place(self) -> int:
        """The first result that differs, counted from 0."""
        pairs = list(zip(self.bare, self.patched, strict=False))
        return next((n for n, (one, other) in enumerate(pairs) if one != other), len(pairs))

    def __str__(self) -> str:
        return (
            f"{self.case}: result {self.place + 1} is {_at(self.place, self.patched)!r} with the patches "
            f"and {_at(self.place, self.bare)!r} without"
        )


def _at(place: int, outcome: Outcome) -> str:
    return outcome[place] if place < len(outcome) else "no result"


@dataclass(frozen=True)
class Listed:
    """What may differ, and the reason of each.

    Attributes:
        cases: by the text of a case.
        refusals: by words of what torch refuses without the patches, where it goes on with them.
    """

    cases: dict[str, str]
    refusals: dict[str, str]

    def reason(self, difference: Difference) -> str | None:
        """Why it may differ; None where nothing is said."""
        refused = _at(difference.place, difference.bare)
        return self.cases.get(str(difference.case)) or next(
            (reason for words, reason in self.refusals.items() if words in refused), None
        )


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


def differences(cases: list[Case], known: Listed, limit: int | None = None) -> list[Difference]:
    """The cases whose results differ in every one of `RUNS` runs of each; one that ``known`` lists, in one run."""
    bare, patched = ({case: [] for case in cases} for _ in range(2))
    doubtful, found = cases, []
    for _ in range(RUNS):
        if not doubtful:
            break
        for seen, is_patched in ((bare, False), (patched, True)):
            for case, outcome in run(doubtful, patched=is_patched, limit=limit).items():
                seen[case].append(outcome)
        differing = [
            Difference(case, bare[case][0], patched[case][0])
            for case in doubtful
            if not set(bare[case]) & set(patched[case])
        ]
        found += [each for each in differing if known.reason(each)]
        doubtful = [each.case for each in differing if not known.reason(each)]
    return sorted(found + [Difference(case, bare[case][0], patched[case][0]) for case in doubtful], key=_case)


def _case(difference: Difference) -> Case:
    return difference.case


def listed(path: Path = LIST) -> Listed:
    """What the list says. Raises ValueError where an entry has no reason."""
    found = Listed({}, {})
    for entry in tomllib.loads(path.read_text()).get("difference", []):
        if not entry["reason"].strip():
            raise ValueError(f"{entry}: a reason is missing")
        found.cases.update(dict.fromkeys(entry.get("cases", ()), entry["reason"]))
        found.refusals.update(dict.fromkeys(entry.get("refusals", ()), entry["reason"]))
    return found
