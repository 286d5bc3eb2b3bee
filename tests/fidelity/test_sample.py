"""A sample of `make fidelity`: every fifteenth case of torch's operator database, and every known disagreement."""

from __future__ import annotations

import os
from collections.abc import Iterator
from unittest import mock

import pytest

from patcher.simulator.rules.tables import FALLBACK
from tests.fidelity.agreement import Agreement, compare, listed
from tests.fidelity.expectations import PASSES
from tests.fidelity.measure import CLOSE, CRASHED, EQUAL
from tests.fidelity.runner import Result, Runner

pytestmark = pytest.mark.slow

EVERY = 15
SKIPPED = 0.05
"""Less than this share of the cases has no verdict, because torch does not run them on a Mac."""


@pytest.fixture(scope="module")
def results() -> Iterator[list[Result]]:
    """Measured with the CPU fallback switched on around it, which must not reach the verdicts."""
    known = listed()
    with mock.patch.dict(os.environ, {FALLBACK: "1"}), Runner() as runner:
        assert len(runner.cases) > 6000
        assert len(known) < 0.01 * (1 - SKIPPED) * len(runner.cases), "more than 1% is listed as disagreeing"
        unknown = sorted(set(known) - set(runner.cases))
        assert not unknown, f"listed, but torch has no such case: {unknown}"
        yield list(runner.run(sorted({*runner.cases[::EVERY], *known})))


@pytest.fixture(scope="module")
def agreement(results: list[Result]) -> Agreement:
    return compare(results, listed(), complete=False)


def test_the_device_does_what_torch_expects_of_a_mac(agreement: Agreement) -> None:
    """Operators pass, or fail, as torch's lists say; what does not is in disagreements.toml with its reason."""
    assert agreement.unlisted == ()


def test_listed_disagreements_still_disagree(agreement: Agreement) -> None:
    """The list has no entry that could go."""
    assert agreement.stale == ()


def test_values_are_the_cpus(results: list[Result]) -> None:
    """What passes is the CPU's to the last bit, but for 1%: the BLAS rounds by the address of its arguments."""
    passed = [result for result in results if result.expected == PASSES and result.observed in (EQUAL, CLOSE)]
    close = [result for result in passed if result.observed == CLOSE]
    assert len(passed) > 300
    assert len(close) <= 0.01 * len(passed), close


def test_nothing_crashes(results: list[Result]) -> None:
    """No operator brings the process down, or runs without end."""
    assert [result for result in results if result.observed == CRASHED] == []
