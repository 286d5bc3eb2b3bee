"""The comparison itself: what it calls equal, and what it does with disagreements."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.fidelity import corpora, measure, releases
from tests.fidelity.agreement import Disagreement, compare, listed
from tests.fidelity.cases import Case
from tests.fidelity.measure import CLOSE, EQUAL
from tests.fidelity.runner import Result

ONE = torch.ones(3)


@pytest.mark.parametrize("value", [ONE, torch.tensor([float("nan")]), torch.ones(2, dtype=torch.complex64), (ONE, [3])])
def test_the_same_bits_are_equal(value: object) -> None:
    """NaN is equal to NaN."""
    assert measure.compare(value, value) == EQUAL


def test_the_next_number_is_only_close() -> None:
    """One unit in the last place is seen."""
    assert measure.compare(torch.nextafter(ONE, ONE * 2), ONE) == CLOSE


@pytest.mark.parametrize("other", [ONE * 1.001, ONE.half(), ONE[:2], (ONE, ONE), torch.tensor([1, 1, float("nan")])])
def test_other_results_differ(other: object) -> None:
    """Another value, dtype, shape or number of results."""
    with pytest.raises(Exception, match=r"not close|do not match|instead of"):
        measure.compare(other, ONE)


def result(name: str, expected: str, observed: str) -> Result:
    return Result("operators", name, "float32", "forward", "2.13", expected, "", observed, 1, "", 0.0)


def known(name: str, expected: str) -> dict[Case, Disagreement]:
    case = Case("operators", name, "float32", "forward")
    return {case: Disagreement(case, expected, "why")}


def test_agreement_is_counted_over_cases_with_a_verdict() -> None:
    """A case that passes where it must fail disagrees; skipped ones do not count."""
    results = [
        result("a", "passes", "equal"),
        result("b", "passes", "refused"),
        result("c", "fails", "refused"),
        result("d", "fails", "draws"),
        result("e", "fails", "close"),
        result("f", "skipped", "differs"),
    ]
    found = compare(results, {}, complete=True)
    assert (found.compared, found.agreeing) == (5, 3)
    assert [each.name for each in found.unlisted] == ["b", "e"]


def test_a_listed_disagreement_is_accepted_until_it_agrees() -> None:
    """A stale entry is reported, and so is one whose case torch now expects something else of."""
    assert compare([result("a", "fails", "equal")], known("a", "fails"), True).unlisted == ()
    assert compare([result("a", "fails", "refused")], known("a", "fails"), True).stale != ()
    assert compare([result("a", "passes", "refused")], known("a", "fails"), True).unlisted != ()


def test_an_entry_for_no_case_is_stale_in_a_complete_run_only() -> None:
    """A sample has not seen every case."""
    assert compare([], known("a", "fails"), complete=True).stale != ()
    assert compare([], known("a", "fails"), complete=False).stale == ()


@pytest.mark.parametrize(
    "entry",
    ['reason = ""\nexpected = "fails"', 'reason = "x"\nexpected = "maybe"'],
)
def test_an_entry_needs_a_reason_and_a_verdict(entry: str, tmp_path: Path) -> None:
    """The list explains each disagreement."""
    path = tmp_path / "disagreements.toml"
    path.write_text(f'[[disagreement]]\n{entry}\ncorpus = "operators"\ncases = ["a forward float32"]\n')
    with pytest.raises(ValueError, match="reason"):
        listed("2.13", path)


def test_an_entry_holds_for_the_releases_that_it_names(tmp_path: Path) -> None:
    """One without ``releases`` holds for all."""
    path = tmp_path / "disagreements.toml"
    entry = '[[disagreement]]\nreason = "x"\nexpected = "fails"\ncorpus = "operators"\n'
    path.write_text(
        f'{entry}cases = ["a forward float32"]\n{entry}releases = ["2.14"]\ncases = ["b forward float32"]\n'
    )
    assert [case.name for case in listed("2.13", path)] == ["a"]
    assert [case.name for case in listed("2.14", path)] == ["a", "b"]


@pytest.mark.parametrize("release", releases.known())
def test_the_list_is_well_formed(release: str) -> None:
    """Every case is given once, with a reason, and belongs to a corpus that there is."""
    assert all(entry.reason for entry in listed(release).values())
    assert {case.corpus for case in listed(release)} <= set(corpora.names())


def test_a_case_in_which_nothing_ran_has_no_verdict() -> None:
    """Where the operator has no kernel, torch's test of errors ends at the first input; a refusal counts."""
    nothing = dataclasses.replace(result("a", "passes", EQUAL), samples=0)
    refused = dataclasses.replace(result("b", "passes", "refused"), samples=0)
    found = compare([nothing, refused, result("c", "passes", EQUAL)], {}, complete=False)
    assert (found.compared, found.agreeing) == (2, 1)
