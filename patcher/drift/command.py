"""``python -m patcher drift``: from its options to the report."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from patcher.changes import catalogue
from patcher.drift import releases, report
from patcher.drift.archives import Release
from patcher.drift.compare import compare, targeted
from patcher.drift.kernels import Kernels, compared
from patcher.drift.names import Texts
from patcher.drift.report import Finding
from patcher.errors import InvalidSwitch, ReleaseUnreadable, compose

FITS, DRIFTED = 0, 1


@dataclass(frozen=True)
class Order:
    """What the command line asks for.

    Attributes:
        wanted: one version, or files; nothing is the newest release.
        library: the library.
        since: None, or the version from which every release is looked at.
        json: whether JSON is printed.
    """

    wanted: tuple[str, ...]
    library: str
    since: str | None
    json: bool


def carry_out(order: Order) -> int:
    """Prints what drifted; progress goes to stderr.

    Returns:
        0 where every change fits that training cannot do without; 1 else, and where a release could not be read.

    Raises:
        InvalidSwitch: no such library, or no such version.
        ReleaseUnreadable: what was asked for cannot be fetched or read.
    """
    _check(order)
    return _all(order) if order.since is not None else _one(order)


def look_at(found: tuple[Release, ...], reviewed: tuple[Release, ...] | str) -> Finding:
    """Compares releases that belong together with the catalogue, and their kernels with the reviewed ones.

    Args:
        found: the releases.
        reviewed: those that the changes were written for, or why there are none.
    """
    texts = Texts(found)
    answers = tuple(compare(change, texts) for change in targeted(catalogue(), found))
    kernels: Kernels | str = reviewed if isinstance(reviewed, str) else compared(found, reviewed)
    return Finding(found, answers, kernels)


def _one(order: Order) -> int:
    finding = look_at(_wanted(order), _reviewed(order.library))
    text = json.dumps(report.as_data(finding), indent=2) if order.json else "\n".join(report.lines(finding))
    sys.stdout.write(f"{text}\n")
    return FITS if finding.trains else DRIFTED


def _all(order: Order) -> int:
    """What is known is printed also where the search is interrupted."""
    data, good = [], True
    _say(order, report.header())
    try:
        for version, found in _each(order):
            if isinstance(found, Finding):
                good = good and found.trains
                data.append(report.as_data(found))
                _say(order, report.row(found))
            else:
                good = False
                data.append({"version": version, "unread": str(found)})
                _say(order, report.unread(version, str(found)))
    finally:
        if order.json:
            sys.stdout.write(json.dumps(data, indent=2) + "\n")
    return FITS if good else DRIFTED


def _each(order: Order) -> Iterator[tuple[str, Finding | ReleaseUnreadable]]:
    """Every release since the one that was asked for; what cannot be read does not keep the others from being read."""
    versions = releases.since(order.library, releases.parse(str(order.since)))
    for number, version in enumerate(versions, 1):
        sys.stderr.write(f"{number} of {len(versions)}: {order.library} {version}\n")
        try:
            yield str(version), look_at(releases.of_version(order.library, version), "not in a table")
        except ReleaseUnreadable as error:
            yield str(version), error


def _say(order: Order, line: str) -> None:
    if not order.json:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def _wanted(order: Order) -> tuple[Release, ...]:
    files = [Path(name) for name in order.wanted]
    if files and all(file.is_file() for file in files):
        return releases.of_files(order.library, files)
    return releases.of_version(order.library, releases.parse(order.wanted[0]) if order.wanted else None)


def _reviewed(library: str) -> tuple[Release, ...] | str:
    """The releases that the changes were written for; without them all but the kernels can still be compared."""
    try:
        return releases.reviewed(library)
    except ReleaseUnreadable as error:
        return str(error)


def _check(order: Order) -> None:
    if order.library not in releases.libraries():
        raise InvalidSwitch(
            compose(
                "no change of this library can be compared with its text",
                found=order.library,
                expected=", ".join(releases.libraries()),
                left="nothing was read",
            )
        )
    if order.since is not None and order.wanted:
        raise InvalidSwitch(compose("--all takes no version and no files", found=" ".join(order.wanted)))
    _check_wanted(order.wanted)


def _check_wanted(wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if not Path(name).is_file()]
    if len(wanted) > 1 and missing:
        raise InvalidSwitch(
            compose(
                "there is no such file",
                found=", ".join(missing),
                expected="one version, or files",
                left="nothing was read",
            )
        )
