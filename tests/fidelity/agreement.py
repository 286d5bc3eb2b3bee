"""Compares what torch expects with what was seen, and both with the list of known disagreements."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.fidelity.cases import Case
from tests.fidelity.expectations import FAILS, PASSES, SKIPPED
from tests.fidelity.measure import PASSED
from tests.fidelity.runner import Result

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LISTED = Path(__file__).with_name("disagreements.toml")


@dataclass(frozen=True)
class Disagreement:
    """A case in which the simulated device does not do what torch expects of a Mac.

    Attributes:
        expected: ``"passes"`` or ``"fails"``.
        reason: why, and why it is left so.
    """

    case: Case
    expected: str
    reason: str


@dataclass(frozen=True)
class Agreement:
    """The comparison of a run.

    Attributes:
        compared: cases with a verdict: all but those that torch does not run on a Mac.
        agreeing: of these, the ones in which the device does what torch expects.
        unlisted: disagreements without a reason in the file.
        stale: cases in the file that no longer disagree, or no longer exist.
    """

    compared: int
    agreeing: int
    unlisted: tuple[Result, ...]
    stale: tuple[Case, ...]

    @property
    def percent(self) -> float:
        return 100 * self.agreeing / self.compared if self.compared else 0.0


def has_verdict(result: Result) -> bool:
    """Whether it counts: torch runs the case on a Mac, and something was run here."""
    return result.expected != SKIPPED and not (result.samples == 0 and result.observed in PASSED)


def agrees(result: Result) -> bool:
    """A test that must pass has passed, or one that must fail has failed: refused, or with other numbers."""
    return (result.observed in PASSED) == (result.expected == PASSES)


def listed(release: str, path: Path = LISTED) -> dict[Case, Disagreement]:
    """The known disagreements of a torch release.

    Raises:
        ValueError: a case that is given twice, or an entry without a reason.
    """
    found: dict[Case, Disagreement] = {}
    for entry in tomllib.loads(path.read_text())["disagreement"]:
        if not entry["reason"].strip() or entry["expected"] not in (PASSES, FAILS):
            raise ValueError(f"an entry needs a reason and what torch expects: {entry}")
        if release not in entry.get("releases", [release]):
            continue
        for line in entry["cases"]:
            name, test, *dtypes = line.split()
            for case in (Case(entry["corpus"], name, dtype, test) for dtype in dtypes):
                if case in found:
                    raise ValueError(f"{case} is listed twice")
                found[case] = Disagreement(case, entry["expected"], entry["reason"])
    return found


def compare(results: Iterable[Result], known: dict[Case, Disagreement], complete: bool) -> Agreement:
    """Compares the results of a corpus with one torch release.

    Args:
        known: the disagreements that are listed for them.
        complete: every case was run, so that a listed one that was not seen does not exist.
    """
    verdicts = [result for result in results if has_verdict(result)]
    wrong = {result.case: result for result in verdicts if not agrees(result)}
    unlisted = [
        result for case, result in wrong.items() if case not in known or known[case].expected != result.expected
    ]
    right = {result.case for result in verdicts if result.case not in wrong}
    stale = [case for case in known if case in right or (complete and case not in wrong)]
    return Agreement(len(verdicts), len(verdicts) - len(wrong), tuple(unlisted), tuple(stale))


def table(results: Iterable[Result]) -> str:
    """The results by what torch expects, where it says so, and what was seen."""
    counts = Counter((r.corpus, r.release, r.expected, r.source or "-", r.test, r.observed) for r in results)
    lines = [f"{'corpus':13s} {'torch':5s} {'expected':9s} {'said by':26s} {'test':9s} {'seen':8s} cases"]
    lines += [f"{c:13s} {v:5s} {e:9s} {s:26s} {t:9s} {o:8s} {n:5d}" for (c, v, e, s, t, o), n in sorted(counts.items())]
    return "\n".join(lines)
