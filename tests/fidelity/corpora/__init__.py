"""The corpora: what PyTorch tests its mps backend with, one file each. The file's name is the corpus's.

To add one, write a file here with a subclass of `Corpus` that is named `CORPUS` at its end. It says which cases there
are, what torch expects of each on a Mac and who says so, and what the simulated device makes of one; `operators.py` is
the example. `make fidelity`, the table and the sample in `make test` then have it. What disagrees goes to
`disagreements.toml`, with its reason.

A corpus is made in a process of its own (`tests.fidelity.worker`), in which the simulated Mac has been started with one
torch; a case that crashes or hangs costs itself alone. `tests.fidelity.database` has torch's operators,
`tests.fidelity.expectations` applies the decorators of torch's tests, `tests.fidelity.measure` compares results with
the CPU's.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

from patcher.macs.mac import MacProfile
from tests.fidelity.cases import Case
from tests.fidelity.expectations import PASSES, Expectation


class Corpus(ABC):
    """A part of PyTorch's tests.

    Attributes:
        EVERY: ``make test`` runs every Nth case, which should take a few seconds.
        LISTED: what is expected is in torch's own tests, which each release's wheel has.
        mac: the simulated Mac; its torch may be another than the one that computes.
        other: what the Mac's torch expects that the installed one does not.
    """

    EVERY: ClassVar[int]
    LISTED: ClassVar[bool] = True

    def __init__(self, mac: MacProfile) -> None:
        self.mac = mac
        self.other: Mapping[Case, Expectation] = {}

    def allowed(self, case: Case, here: tuple[float, float]) -> tuple[float, float]:
        """The absolute and relative difference that the Mac's torch allows its test, given the installed one's."""
        expected = self.other.get(case)
        return expected.allowed if expected is not None and expected.verdict == PASSES else here

    @abstractmethod
    def cases(self) -> list[Case]:
        """Every case, sorted."""

    @abstractmethod
    def expectation(self, case: Case) -> Expectation:
        """What the installed torch's test of the case ends with on a Mac.

        Where `tests.fidelity.releases` has recorded another verdict of the Mac's torch, that one counts.
        """

    @abstractmethod
    def outcomes(self, case: Case) -> Iterator[str]:
        """Runs the case's sample inputs one by one.

        Yields:
            ``EQUAL``, ``CLOSE`` or ``DRAWS`` of `tests.fidelity.measure` for each; the last one ends the case.

        Raises:
            Different: a result is not what it should be.
            Exception: whatever the device raises, which is a refusal.
        """


def names() -> list[str]:
    """Of every corpus."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("test_"))


def corpus_class(name: str) -> type[Corpus]:
    """The class of a corpus; imports its file, which may import torch's databases."""
    found: type[Corpus] = importlib.import_module(f"{__name__}.{name}").CORPUS
    return found
