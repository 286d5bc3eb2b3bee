"""Corpora whose cases are written down one by one, each with what a Mac does and who says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from tests.fidelity.cases import Case
from tests.fidelity.corpora import Corpus
from tests.fidelity.expectations import FAILS, PASSES, Expectation
from tests.fidelity.measure import EQUAL, Different, compare


@dataclass(frozen=True)
class Claim:
    """What a Mac does.

    Attributes:
        case: what is tried.
        expected: what becomes of it on a Mac, and the source: a file of PyTorch, an issue, a list of the wheel.
        run: tries it, and yields pairs: what came, and what should.
    """

    case: Case
    expected: Expectation
    run: Callable[[], Iterable[tuple[Any, Any]]]


class Claims(Corpus):
    """A corpus of claims, which `claims` makes."""

    LISTED: ClassVar[bool] = False
    _made: dict[Case, Claim] | None = None

    def claims(self) -> Iterator[Claim]:
        """Every one, in any order."""
        raise NotImplementedError

    def cases(self) -> list[Case]:
        return sorted(self._claims())

    def expectation(self, case: Case) -> Expectation:
        return self._claims()[case].expected

    def outcomes(self, case: Case) -> Iterator[str]:
        for ours, theirs in self._claims()[case].run():
            yield compare(ours, theirs)

    def _claims(self) -> dict[Case, Claim]:
        if self._made is None:
            made = list(self.claims())
            self._made = {claim.case: claim for claim in made}
            if len(made) != len(self._made):
                raise ValueError("a case is claimed twice")
        return self._made


def works(source: str = "") -> Expectation:
    """It works on a Mac; without a source, as everything does of which nobody says otherwise."""
    return Expectation(PASSES, source)


def refused(source: str) -> Expectation:
    """It raises on a Mac, or goes wrong."""
    return Expectation(FAILS, source)


def says(call: Callable[[], object], words: str, error: type[Exception] = RuntimeError) -> str:
    """``"equal"`` where a call raises this class of exception with this text in its message.

    Raises:
        Different: it does not.
    """
    try:
        call()
    except error as raised:
        if words in str(raised):
            return EQUAL
        raise Different(f"{type(raised).__name__}: {raised}") from raised
    raise Different(f"nothing raised instead of: {words}")
