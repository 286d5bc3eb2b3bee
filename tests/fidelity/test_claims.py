"""Corpora of claims: what a call must say, and that a case is claimed once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from patcher.macs.mac import parse
from tests.fidelity.cases import Case
from tests.fidelity.claims import Claim, Claims, refused, says, works
from tests.fidelity.measure import DIFFERS, EQUAL, REFUSED, Different, observe

CASE = Case("two", "sum", "-", "add")


class Two(Claims):
    EVERY = 1
    twice = False

    def claims(self) -> Iterator[Claim]:
        yield Claim(CASE, works("arithmetic"), lambda: iter([(1 + 1, 2), (2 + 2, 4)]))
        yield Claim(Case("two", "zero", "-", "divide"), refused("arithmetic"), lambda: iter([(1 // 0, 1)]))
        yield Claim(Case("two", "odd", "-", "add"), works(), lambda: iter([(1 + 2, 4)]))
        if self.twice:
            yield Claim(CASE, works(), lambda: iter(()))


def test_claims_are_run_and_compared() -> None:
    """Pairs that are equal, one that raises, one that differs; in the order of the cases."""
    corpus = Two(parse("M1 8GB"))
    assert [case.name for case in corpus.cases()] == ["odd", "sum", "zero"]
    assert [observe(corpus.outcomes(case)).outcome for case in corpus.cases()] == [DIFFERS, EQUAL, REFUSED]
    assert observe(corpus.outcomes(CASE)).samples == 2
    assert corpus.expectation(CASE) == works("arithmetic")


def test_a_case_is_claimed_once() -> None:
    """Otherwise the second would hide the first."""
    corpus = Two(parse("M1 8GB"))
    corpus.twice = True
    with pytest.raises(ValueError, match="claimed twice"):
        corpus.cases()


def test_words_are_looked_for() -> None:
    """In the message of the exception of this class."""

    def call() -> None:
        raise RuntimeError("linalg.solve: singular")

    assert says(call, "singular") == EQUAL
    for words, error in (("regular", RuntimeError), ("singular", TypeError)):
        with pytest.raises((Different, RuntimeError)):
            says(call, words, error)
    with pytest.raises(Different, match="nothing raised"):
        says(lambda: None, "singular")
