"""The search itself, on programs that are functions of the changes in place."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence

import pytest

from patcher.bisect.reduce import smallest
from patcher.bisect.runs import Outcome
from patcher.bisect.search import Answer, Search
from patcher.engine.model import AnyChange
from tests.engine.conftest import patch

REQUIRED = ["lib:needed0", "lib:needed1", "lib:needed2"]
OPTIONAL = [f"lib:f{number}" for number in range(40)]
CHANGES: list[AnyChange] = [patch(target, "f") for target in REQUIRED]
CHANGES += [patch(target, "f", needed_for=None) for target in OPTIONAL]


def raised(error: str, code: int = 1) -> Outcome:
    return Outcome(code, f"Traceback (most recent call last):\n  File ...\n{error}: no\n", 0.1)


PASSED = Outcome(0, "done\n", 0.1)


def search(program: Callable[[set[str]], Outcome], match: str | None = None) -> Search:
    """A search for a program that is given the keys in place."""

    def run(without: Sequence[str]) -> Outcome:
        return program({change.key for change in CHANGES} - set(without))

    return Search(CHANGES, run, lambda on, outcome: None, match)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_smallest_set_is_found_wherever_it_is(count: int) -> None:
    """ddmin leaves exactly the culprits, however they are spread; one of 60 within 2 log2(60) + 1 calls."""
    generator = random.Random(count)
    items = [str(number) for number in range(60)]
    for _ in range(50):
        culprits, calls = set(generator.sample(items, count)), 0

        def fails(part: Collection[str], culprits: set[str] = culprits) -> bool:
            nonlocal calls
            calls += 1
            return culprits <= set(part)

        assert set(smallest(items, fails)) == culprits
        assert calls <= (13 if count == 1 else 60 * count)


def test_changes_that_fail_together_are_found_and_their_relief_is_run() -> None:
    """Both are named, in the report's order; without them the program is seen to pass."""
    found = search(lambda on: raised("ValueError") if {"lib:f3", "lib:f31"} <= on else PASSED).of_a_failure()
    assert (found.answer, [change.key for change in found.changes]) == (Answer.FOUND, ["lib:f3", "lib:f31"])
    assert found.failure.kind == "fails with ValueError" and found.relief == PASSED


def test_another_failure_than_the_one_searched_for_does_not_count() -> None:
    """A half of the changes fails otherwise: taken for the failure, it would lead to a change that is innocent."""

    def program(on: set[str]) -> Outcome:
        if "lib:f7" not in on:
            return raised("ImportError")
        return raised("ValueError") if "lib:f30" in on else PASSED

    found = search(program).of_a_failure()
    assert [change.key for change in found.changes] == ["lib:f7", "lib:f30"]
    same = search(lambda on: Outcome(1, "wrong" if "lib:f30" in on else "other", 0), match="wrong").of_a_failure()
    assert [change.key for change in same.changes] == ["lib:f30"]


def test_required_changes_stay_in_place_unless_they_are_the_reason() -> None:
    """The program cannot run without them; where they alone make it fail they are searched, too."""

    def program(on: set[str]) -> Outcome:
        assert set(REQUIRED) <= on
        return raised("ValueError") if "lib:f9" in on else PASSED

    assert [change.key for change in search(program).of_a_failure().changes] == ["lib:f9"]
    found = search(lambda on: raised("ValueError") if "lib:needed1" in on else PASSED).of_a_failure()
    assert [change.key for change in found.changes] == ["lib:needed1"]


def test_every_reason_is_found_where_there_are_several() -> None:
    """With the first one left out it fails because of the second; the relief is without both."""
    found = search(lambda on: raised("ValueError") if {"lib:f3", "lib:f31"} & on else PASSED).of_a_failure()
    assert sorted(change.key for (change,) in found.reasons) == ["lib:f3", "lib:f31"]
    assert found.relief == PASSED

    def program(on: set[str]) -> Outcome:
        return raised("ValueError") if {"lib:needed1", "lib:f9"} & on else PASSED

    assert {change.key for change in search(program).of_a_failure().changes} == {"lib:needed1", "lib:f9"}


def _flaky() -> Callable[[set[str]], Outcome]:
    ends = iter([raised("ValueError"), *[PASSED] * 99])
    return lambda on: next(ends)


@pytest.mark.parametrize(
    ("program", "answer"),
    [
        (lambda on: PASSED, Answer.PASSES),
        (lambda on: raised("ValueError"), Answer.BARE),
        (_flaky(), Answer.FLAKY),
    ],
)
def test_what_is_not_our_fault_is_said_so(program: Callable[[set[str]], Outcome], answer: Answer) -> None:
    """No failure, the same one without any change, one that comes and goes: no change is accused."""
    found = search(program).of_a_failure()
    assert (found.answer, found.changes, found.relief) == (answer, (), None)
    assert found.runs <= 4


def test_a_failure_that_stops_during_the_search_is_flaky() -> None:
    """What is left at the end is run once more."""
    runs = iter(range(99))
    found = search(lambda on: raised("ValueError") if next(runs) < 9 and "lib:f3" in on else PASSED).of_a_failure()
    assert found.answer is Answer.FLAKY and found.changes == ()


def told(text: str | None) -> Outcome:
    return Outcome(0 if text is not None else 1, "", 0.1, text)


@pytest.mark.parametrize(
    ("program", "answer", "changes"),
    [
        (lambda on: told("2" if "lib:f5" in on else "1"), Answer.FOUND, ["lib:f5"]),
        (lambda on: told("1"), Answer.SAME_OUTPUT, []),
        (lambda on: told(str(random.random())), Answer.FLAKY, []),
        (lambda on: told(None), Answer.NO_OUTPUT, []),
        (lambda on: told(None if "lib:f5" in on else "1"), Answer.NO_OUTPUT, []),
    ],
)
def test_the_output_of_a_command(program: Callable[[set[str]], Outcome], answer: Answer, changes: list[str]) -> None:
    """The change with which it prints something else than with the required ones alone."""
    found = search(program).of_an_output()
    assert (found.answer, [change.key for change in found.changes]) == (answer, changes)


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (PASSED, "passes"),
        (raised("torch.cuda.OutOfMemoryError"), "fails with torch.cuda.OutOfMemoryError"),
        (Outcome(3, "Traceback of the day\nValueError: said so\n", 0), "exits with 3"),
        (Outcome(-11, "", 0), "was ended by SIGSEGV"),
        (Outcome(-40, "", 0), "was ended by signal 40"),
        (Outcome(None, "", 9), "ran into the time limit"),
    ],
)
def test_the_kind_of_an_end(outcome: Outcome, kind: str) -> None:
    """What two failures are compared by."""
    assert outcome.kind == kind
