"""A sample of `make fidelity`: every Nth case of each corpus, and every known disagreement."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from unittest import mock

import pytest

from patcher.simulator.rules.tables import FALLBACK
from tests.fidelity import corpora, releases
from tests.fidelity.agreement import Agreement, Disagreement, compare, listed
from tests.fidelity.cases import Case
from tests.fidelity.expectations import PASSES
from tests.fidelity.measure import CLOSE, CRASHED, EQUAL
from tests.fidelity.runner import Result, Runner

pytestmark = pytest.mark.slow

EXACT = {"compiled": 0.5, "linalg": 0.9, "operators": 0.99}
"""The least share of what passes that is the CPU's to the last bit: its BLAS rounds by the address of its arguments.

Modules are compared on several paths, and ``fused`` optimizers with the loop, which round otherwise. Compiled code has
other functions for exp and its like, and sums in another order.
"""


TESTED = releases.installed()
SAMPLES = [
    *((corpus, TESTED, 1) for corpus in corpora.names()),
    *(("operators", release, 4) for release in releases.known() if release not in (TESTED, *releases.OTHER_TESTS)),
]
"""Corpus, torch of the simulated Mac, and how much rarer than usual its cases are."""


def known(corpus: str, release: str) -> dict[Case, Disagreement]:
    return {case: entry for case, entry in listed(release).items() if case.corpus == corpus}


@pytest.fixture(scope="module", params=SAMPLES, ids=[f"{corpus}-{release}" for corpus, release, _ in SAMPLES])
def results(request: pytest.FixtureRequest) -> Iterator[list[Result]]:
    """Measured with the CPU fallback switched on around it, which must not reach the verdicts."""
    corpus, release, rarer = request.param
    every, listed_cases = rarer * corpora.corpus_class(corpus).EVERY, known(corpus, release)
    with mock.patch.dict(os.environ, {FALLBACK: "1"}), Runner(corpus, release) as runner:
        unknown = sorted(set(listed_cases) - set(runner.cases))
        assert not unknown, f"listed, but torch has no such case: {unknown}"
        assert len(listed_cases) < 0.01 * len(runner.cases), "more than 1% is listed as disagreeing"
        yield list(runner.run(sorted({*runner.cases[::every], *listed_cases})))


@pytest.fixture(scope="module")
def agreement(results: list[Result]) -> Agreement:
    return compare(results, known(results[0].corpus, results[0].release), complete=False)


def test_the_device_does_what_torch_expects_of_a_mac(agreement: Agreement) -> None:
    """Cases pass, or fail, as torch's lists say; what does not is in disagreements.toml with its reason."""
    assert agreement.unlisted == ()


def test_listed_disagreements_still_disagree(agreement: Agreement) -> None:
    """The list has no entry that could go."""
    assert agreement.stale == ()


def test_values_are_the_cpus(results: list[Result]) -> None:
    """What passes is the CPU's, and to the last bit where nothing says otherwise."""
    passed = [result for result in results if result.expected == PASSES and result.observed in (EQUAL, CLOSE)]
    close = [result for result in passed if result.observed == CLOSE]
    assert passed
    allowed = math.ceil((1 - EXACT.get(results[0].corpus, 0.0)) * len(passed))
    assert len(close) <= allowed, close


def test_nothing_crashes(results: list[Result]) -> None:
    """No case brings the process down, or runs without end."""
    assert [result for result in results if result.observed == CRASHED] == []
