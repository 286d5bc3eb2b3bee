"""What torch expects of a Mac by release: the installed one's databases, and what others expect otherwise.

The latter is in files, ``expected/torch_2_14.txt``, which `tests.fidelity.wheel` writes from torch's wheel for macOS. A
line has a name, a test and dtypes, and what becomes of that test: ``softmax forward float16: fails ON_MPS_XFAILLIST``,
``absent`` where the release has no such test, ``passes within 0.005 0.001`` (absolute, relative) where it allows more
than usual.
"""

from __future__ import annotations

import importlib.metadata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from patcher.macs.figures import TORCH
from patcher.macs.mac import release_of
from tests.fidelity.cases import Case
from tests.fidelity.expectations import Expectation

if TYPE_CHECKING:
    from tests.fidelity.corpora import Corpus

FOLDER = Path(__file__).with_name("expected")
ABSENT = "absent"
OTHER_TESTS = frozenset({"2.15"})
"""Releases whose lists are for tests that run otherwise than 2.13's: 2.15's no longer name a gradient that no device
has, or an error that no device raises. The tests are in no wheel, so that these lists are recorded and not compared."""


def installed() -> str:
    """The release of the torch that computes, whose databases are installed: ``"2.13"``."""
    return release_of(importlib.metadata.version("torch"))


def known() -> list[str]:
    """The releases that a simulated Mac can have and of which it is known what torch expects, oldest first."""
    return [release for release in TORCH if release == installed() or path_of(release).exists()]


def path_of(release: str) -> Path:
    return FOLDER / f"torch_{release.replace('.', '_')}.txt"


class Release:
    """A release's expectations.

    Attributes:
        other: those in which it differs from the installed one.
    """

    def __init__(self, release: str) -> None:
        self._release = release
        path = path_of(release)
        self.other = dict(read(path.read_text())) if release != installed() else {}

    def cases(self, corpus: Corpus) -> list[Case]:
        """A corpus's cases: the installed ones, and what the release tests besides and the installed torch has."""
        here = corpus.cases()
        if not here:
            return here
        if corpus.LISTED and self._release in OTHER_TESTS:
            return []
        first, tests = here[0].corpus, {(case.name, case.test) for case in here}
        more = (case for case in self.other if case.corpus == first and (case.name, case.test) in tests)
        found = {*here, *more}
        return sorted(case for case in found if self._verdict(case) != ABSENT)

    def expectation(self, corpus: Corpus, case: Case) -> Expectation:
        return self.other.get(case) or corpus.expectation(case)

    def _verdict(self, case: Case) -> str:
        return self.other[case].verdict if case in self.other else ""


def read(text: str) -> Iterator[tuple[Case, Expectation]]:
    """The cases in a file and what is expected of them."""
    corpus = ""
    for line in text.splitlines():
        if line.startswith("["):
            corpus = line.strip("[]")
        elif corpus and line:
            (name, test, *dtypes), said = line.split(": ")[0].split(), line.split(": ")[1]
            (verdict, *source), *allowed = (part.split() for part in said.split(" within "))
            absolute, relative = map(float, allowed[0]) if allowed else (0.0, 0.0)
            for dtype in dtypes:
                yield Case(corpus, name, dtype, test), Expectation(verdict, " ".join(source), (absolute, relative))


def written(head: dict[str, str], found: Iterable[tuple[Case, Expectation]]) -> str:
    """The content of a file.

    Args:
        head: what is known of the wheel.
        found: the cases that end otherwise than in the installed release.
    """
    lines: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for case, expected in sorted(found, key=lambda each: each[0]):
        said = f"{expected.verdict} {expected.source}".strip()
        said += " within {:g} {:g}".format(*expected.allowed) if any(expected.allowed) else ""
        lines[case.corpus, case.name, case.test, said].append(case.dtype)
    text = "".join(f"{key}: {value}\n" for key, value in head.items())
    for corpus in sorted({key[0] for key in lines}):
        text += f"\n[{corpus}]\n"
        text += "".join(
            f"{name} {test} {' '.join(dtypes)}: {said}\n"
            for (which, name, test, said), dtypes in sorted(lines.items())
            if which == corpus
        )
    return text
