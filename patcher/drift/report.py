"""What drift found: as text for a release, as a line of a table for each of many, as data for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from patcher.drift.archives import Release
from patcher.drift.compare import TODO, Answer, Status
from patcher.drift.kernels import Kernels
from patcher.engine.model import Patch


@dataclass(frozen=True)
class Finding:
    """What is known of a release.

    Attributes:
        releases: it, and what it was compared with together.
        answers: one for each change, in the order of the catalogue.
        kernels: its Triton kernels, or why they could not be compared.
    """

    releases: tuple[Release, ...]
    answers: tuple[Answer, ...]
    kernels: Kernels | str

    def missing(self, *, required: bool) -> tuple[Answer, ...]:
        """The answers of required or of optional changes that do not fit."""
        return tuple(a for a in self.answers if not a.fits and a.change.required is required)

    @property
    def trains(self) -> bool:
        """Whether every change that training cannot do without fits."""
        return not self.missing(required=True)

    @property
    def verdict(self) -> str:
        """In words: as the gate at the end of the import would have it."""
        required, optional = self.missing(required=True), self.missing(required=False)
        if required:
            return f"refused: {', '.join(_short(answer) for answer in required)}"
        plural = "s" if len(optional) > 1 else ""
        return f"trains without {len(optional)} optional change{plural}" if optional else "trains as reviewed"

    @property
    def fitting(self) -> str:
        """``"50 of 52"``."""
        return f"{sum(answer.fits for answer in self.answers)} of {len(self.answers)}"


COLUMNS = ("version", "date", "with", "fits", "required missing", "optional missing", "verdict")


def header() -> str:
    """The first two lines of the table, in Markdown."""
    return f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def row(finding: Finding) -> str:
    """The line of one release; of its required changes the verdict has the names."""
    first, *others = finding.releases
    cells = (
        str(first.version),
        str(first.date or "unknown"),
        ", ".join(_title(other) for other in others),
        finding.fitting,
        str(len(finding.missing(required=True))),
        str(len(finding.missing(required=False))),
        finding.verdict,
    )
    return f"| {' | '.join(cells)} |"


def unread(version: str, error: str) -> str:
    """The line of a release that could not be read."""
    headline, *parts = error.splitlines()
    named = (part.strip().partition(":") for part in parts)
    reason = next((text.strip() for name, _, text in named if name == "found"), headline)
    return f"| {' | '.join((version, *[''] * (len(COLUMNS) - 2), f'not read: {reason}'))} |"


def lines(finding: Finding) -> Iterator[str]:
    """The report of one release: the verdict, each change that needs a maintainer, then the kernels."""
    yield f"{' with '.join(_title(release) for release in finding.releases)}: {finding.verdict}"
    yield f"{finding.fitting} changes fit"
    for answer in sorted(finding.answers, key=lambda a: (a.fits, not a.change.required)):
        if answer.status is not Status.FITS or answer.found:
            yield from _lines_of(answer)
    yield from _lines_of_kernels(finding.kernels)


def as_data(finding: Finding) -> dict[str, Any]:
    """The same with every change, as plain data."""
    first, *others = finding.releases
    return {
        "library": first.name,
        "version": str(first.version),
        "date": first.date and str(first.date),
        "with": {other.name: str(other.version) for other in others},
        "verdict": finding.verdict,
        "trains": finding.trains,
        "required_missing": [answer.change.key for answer in finding.missing(required=True)],
        "optional_missing": [answer.change.key for answer in finding.missing(required=False)],
        "changes": [_data_of(answer) for answer in finding.answers],
        "kernels": {"unknown": finding.kernels} if isinstance(finding.kernels, str) else asdict(finding.kernels),
    }


def _title(release: Release) -> str:
    return f"{release.name} {release.version}"


def _short(answer: Answer) -> str:
    return answer.change.qualname if isinstance(answer.change, Patch) else answer.change.key


def _expects(answer: Answer) -> str:
    return answer.change.expects or "" if isinstance(answer.change, Patch) else ""


def _lines_of(answer: Answer) -> Iterator[str]:
    kind = "required" if answer.change.required else "optional"
    yield f"  {answer.status.value}: {answer.change.key} ({kind})"
    parts = {
        "expected": _expects(answer) if answer.status is Status.SIGNATURE else "",
        "found": answer.found if answer.status is not Status.FITS else f"{answer.found} under another condition",
        "elsewhere": ", ".join(answer.elsewhere),
        "needed for": answer.change.needed_for,
        "file": answer.file,
        "do": TODO.get(answer.status),
    }
    yield from (f"      {name + ':':<12}{text}" for name, text in parts.items() if text)


def _lines_of_kernels(kernels: Kernels | str) -> Iterator[str]:
    if isinstance(kernels, str):
        yield f"Triton kernels were not compared: {kernels}"
        return
    new, gone = (sum(map(len, names.values())) for names in (kernels.new, kernels.gone))
    yield f"{kernels.count} Triton kernels: {new} new and {gone} gone since {kernels.reviewed}"
    yield from _by_module("new", kernels.new)
    yield from _by_module("gone", kernels.gone)


def _by_module(word: str, names: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield from (f"  {word:<5} {module}: {', '.join(found)}" for module, found in names.items())


def _data_of(answer: Answer) -> dict[str, Any]:
    return {
        "target": answer.change.key,
        "status": answer.status.value,
        "required": answer.change.required,
        "needed_for": answer.change.needed_for,
        "expected": _expects(answer) or None,
        "found": answer.found,
        "elsewhere": list(answer.elsewhere),
        "file": answer.file,
        "do": TODO.get(answer.status),
    }
