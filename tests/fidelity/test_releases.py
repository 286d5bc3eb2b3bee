"""What other torch releases expect of a Mac: the files that `tests.fidelity.wheel` writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from patcher.macs.mac import parse
from patcher.simulator.wheels import records
from tests.fidelity import corpora, releases
from tests.fidelity.cases import Case
from tests.fidelity.corpora import Corpus
from tests.fidelity.expectations import FAILS, PASSES, SKIPPED, Expectation

OTHERS = [release for release in releases.known() if release != releases.installed()]


class Few(Corpus):
    """Two cases that pass."""

    EVERY = 1

    def cases(self) -> list[Case]:
        return [Case("operators", "add", "float32", "forward"), Case("operators", "qr", "float32", "forward")]

    def expectation(self, case: Case) -> Expectation:
        return Expectation(PASSES)

    def outcomes(self, case: Case) -> Iterator[str]:
        return iter(())


def test_what_is_written_is_read() -> None:
    """Dtypes of one verdict share a line."""
    found = [
        (Case("errors", "add", "-", "error"), Expectation(FAILS, "XFAILLIST")),
        (Case("operators", "add", "float16", "forward"), Expectation(PASSES)),
        (Case("operators", "add", "float32", "forward"), Expectation(PASSES)),
        (Case("operators", "sum", "float32", "forward"), Expectation(PASSES, "", (0.005, 1e-3))),
    ]
    text = releases.written({"torch": "2.14.1"}, reversed(found))
    assert list(releases.read(text)) == found
    assert "\nadd forward float16 float32: passes\n" in text
    assert "\nsum forward float32: passes within 0.005 0.001\n" in text


def test_a_release_has_other_cases_and_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is absent goes, a new dtype of a known test comes, an operator that cannot be called here does not."""
    release, corpus = releases.Release(releases.installed()), Few(parse("M1 8GB"))
    assert release.cases(corpus) == corpus.cases()
    add, more = corpus.cases()[0], dataclasses.replace(corpus.cases()[0], dtype="float16")
    other = {
        corpus.cases()[1]: Expectation(releases.ABSENT),
        add: Expectation(FAILS, "LIST"),
        more: Expectation(PASSES),
        Case("operators", "new", "float32", "forward"): Expectation(PASSES),
    }
    monkeypatch.setattr(release, "other", other)
    assert release.cases(corpus) == [more, add]
    assert release.expectation(corpus, add) == Expectation(FAILS, "LIST")


def test_a_release_allows_what_its_test_does() -> None:
    """Where nothing else is known, and where it fails, what the installed one allows stays."""
    corpus = Few(parse("M1 8GB"))
    first, second = corpus.cases()
    corpus.other = {first: Expectation(PASSES, "", (0.5, 0.0))}
    assert corpus.allowed(first, (0.1, 0.1)) == (0.5, 0.0)
    assert corpus.allowed(second, (0.1, 0.1)) == (0.1, 0.1)
    corpus.other = {first: Expectation(FAILS, "LIST")}
    assert corpus.allowed(first, (0.1, 0.1)) == (0.1, 0.1)


@pytest.mark.parametrize("release", OTHERS)
def test_a_file_is_of_the_wheel_whose_operators_are_recorded(release: str) -> None:
    """The simulated Mac's rules and what is expected of it are of one torch."""
    text, wheel = releases.path_of(release).read_text(), records.record(release)
    head = dict(line.split(": ") for line in text.split("\n\n")[0].splitlines())
    assert head == {"torch": wheel.torch, "wheel": wheel.wheel, "sha256": wheel.sha256}
    said = dict(releases.read(text))
    assert {case.corpus for case in said} <= set(corpora.names())
    assert {expected.verdict for expected in said.values()} <= {PASSES, FAILS, SKIPPED, releases.ABSENT}
