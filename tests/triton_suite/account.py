"""What became of Triton's tests: counts by file, and the reasons of what fails."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Outcome:
    """One test: ``file::name[parameters]``, "passed", "failed" or "skipped", and what it said.

    Attributes:
        launches: how many of its launches ran as shaders, under "", and with torch operators, by the reason.
    """

    test: str
    outcome: str
    why: str
    launches: Mapping[str, int] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The file's name."""
        return self.test.partition("::")[0]


@dataclass(frozen=True)
class Reason:
    """Why tests fail.

    Attributes:
        why: in words.
        tests: patterns of tests that it holds for.
        says: what the failure says, a regular expression; empty for whatever it says.
        hardware: whether such a test is one of a machine, of its compiler or of its messages, and not of the language.
    """

    why: str
    tests: tuple[str, ...] = ("*",)
    says: str = ""
    hardware: bool = False

    def holds(self, outcome: Outcome) -> bool:
        """Whether it is the reason of a failure."""
        named = any(fnmatchcase(outcome.test, pattern) for pattern in self.tests)
        return named and re.search(self.says, outcome.why) is not None


def reasons() -> list[Reason]:
    """Those of ``reasons.toml``, the first that holds being taken."""
    found = tomllib.loads(Path(__file__).with_name("reasons.toml").read_text())["reason"]
    return [Reason(**{**one, "tests": tuple(one.get("tests", ["*"]))}) for one in found]


def read(files: Iterable[Path]) -> list[Outcome]:
    """The outcomes in files of the plugin; the last one of each test."""
    found = {}
    for line in (line for file in files if file.exists() for line in file.read_text().splitlines()):
        told = json.loads(line)
        test = told["test"].rpartition("/")[2] if "::" not in told["test"] else told["test"]
        test = re.sub(r"^[^:\[]*/", "", test)
        found[test] = Outcome(test, told["outcome"], told["why"], told.get("launches", {}))
    return list(found.values())


class Account:
    """Outcomes, and which reason each failure has."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        self.outcomes = outcomes

    @cached_property
    def explained(self) -> dict[str, Reason | None]:
        """The failures, and the reason of each, None where there is none."""
        known = reasons()
        failed = (outcome for outcome in self.outcomes if outcome.outcome == "failed")
        return {one.test: next((reason for reason in known if reason.holds(one)), None) for one in failed}

    @property
    def unknown(self) -> list[Outcome]:
        """Failures for no known reason."""
        return [one for one in self.outcomes if one.outcome == "failed" and self.explained[one.test] is None]

    def __str__(self) -> str:
        parts = (self._table(), self._by_reason(), self._skipped(), self._launches(), self._unknown())
        return "\n".join(line for part in parts for line in [*part, ""])

    def _table(self) -> Iterable[str]:
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for one in self.outcomes:
            reason = self.explained.get(one.test)
            kind = "of a machine" if reason is not None and reason.hardware else one.outcome
            counts[one.file][kind] += 1
            counts["all"][kind] += 1
        yield f"{'file':32}{'passed':>8}{'failed':>8}{'machine':>9}{'skipped':>9}{'of what can pass':>18}"
        for file, count in counts.items():
            tried = count["passed"] + count["failed"]
            share = f"{100 * count['passed'] / tried:.1f} %" if tried else ""
            numbers = f"{count['passed']:8}{count['failed']:8}{count['of a machine']:9}{count['skipped']:9}"
            yield f"{file:32}{numbers}{share:>18}"

    def _by_reason(self) -> Iterable[str]:
        counts = Counter(reason for reason in self.explained.values() if reason is not None)
        return [f"{count:6} {reason.why}" for reason, count in counts.most_common()]

    def _skipped(self) -> Iterable[str]:
        counts = Counter(one.why.removeprefix("Skipped: ") for one in self.outcomes if one.outcome == "skipped")
        return [f"{count:6} skipped: {why}" for why, count in counts.most_common()]

    def _launches(self) -> Iterable[str]:
        """Where kernels ran, and of how many tests that launch one some launch was a shader."""
        every: Counter[str] = sum((Counter(one.launches) for one in self.outcomes), Counter())
        launching = [one for one in self.outcomes if one.launches]
        shaders = sum("" in one.launches for one in launching)
        yield f"launches: {every.total()}, {every.pop('', 0)} as shaders; tests: {len(launching)}, {shaders} with one"
        for why, count in every.most_common():
            yield f"{count:6} with torch operators: {why[:120]}"

    def _unknown(self) -> Iterable[str]:
        for one in self.unknown:
            yield f"failed for no known reason: {one.test}: {(one.why.splitlines() or [''])[0][:200]}"
