"""From a program that fails to the changes that make it fail."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from patcher.bisect.reduce import smallest
from patcher.bisect.runs import Outcome
from patcher.engine.model import AnyChange

Run = Callable[[Sequence[str]], Outcome]


class Answer(enum.Enum):
    """What a search can end in, in the words of the report."""

    FOUND = "these changes make it fail"
    PASSES = "it does not fail with every change in place: there is nothing to look for"
    NO_OUTPUT = "the program itself fails, so that the command was not run: search without --command first"
    SAME_OUTPUT = "the command prints the same with and without the changes that are not required"
    FLAKY = "it does not end the same way twice: make it repeatable first (a seed, no clock, no network)"
    BARE = "it fails in the same way with no change in place: no change is the reason"


@dataclass(frozen=True)
class Finding:
    """The end of a search.

    Attributes:
        answer: what came of it.
        reasons: sets of changes, each of which makes it fail where those before it are left out.
        failure: the run that is looked into.
        relief: the run with every change but those found; None where none were.
        runs: how many times the program was run.
    """

    answer: Answer
    reasons: tuple[tuple[AnyChange, ...], ...]
    failure: Outcome
    relief: Outcome | None
    runs: int

    @property
    def changes(self) -> tuple[AnyChange, ...]:
        """Those of all reasons."""
        return tuple(change for reason in self.reasons for change in reason)


@dataclass
class Search:
    """Looks for the smallest set of changes with which a program fails as it does with all of them.

    A run that fails in another way, as many do without a change that training needs, does not count as the failure.
    The required changes stay in place therefore, unless they alone make it fail.

    Attributes:
        changes: every change, in the order of the report.
        run: runs the program without the changes of these keys.
        tell: is told of every run: how many changes were in place, and how it ended.
        match: a text that marks the failure, instead of the type of the exception.
        suspects: the keys among which the reason is known to be, fewer and fewer; empty before the first one is known.
        runs: how many times the program was run.
    """

    changes: Sequence[AnyChange]
    run: Run
    tell: Callable[[int, Outcome], None]
    match: str | None = None
    suspects: tuple[str, ...] = field(default=(), init=False)
    runs: int = field(default=0, init=False)

    def of_a_failure(self) -> Finding:
        """The set with which the program fails."""
        failure = self._with(self._every())
        if not self._is_failure(failure):
            return self._ends(Answer.PASSES, failure)

        def same(outcome: Outcome) -> bool:
            return self._is_failure(outcome) and (self.match is not None or outcome.kind == failure.kind)

        if not same(self._with(self._every())):
            return self._ends(Answer.FLAKY, failure)
        required = self._keys(required=True)
        if not same(self._with(required)):
            return self._reduced(self._keys(required=False), required, same, failure)
        if same(self._with(())):
            return self._ends(Answer.BARE, failure)
        return self._reduced(required, (), same, failure)

    def of_an_output(self) -> Finding:
        """The set with which the command prints something else than with the required changes alone."""
        required = self._keys(required=True)
        plain = self._with(required)
        if plain.told is None:
            return self._ends(Answer.NO_OUTPUT, plain)
        if self._with(required).told != plain.told:
            return self._ends(Answer.FLAKY, plain)

        def differs(outcome: Outcome) -> bool:
            return outcome.told is not None and outcome.told != plain.told

        failure = self._with(self._every())
        if failure.told is None:
            return self._ends(Answer.NO_OUTPUT, failure)
        if not differs(failure):
            return self._ends(Answer.SAME_OUTPUT, failure)
        return self._reduced(self._keys(required=False), required, differs, failure)

    def _reduced(
        self, suspects: tuple[str, ...], kept: tuple[str, ...], same: Callable[[Outcome], bool], failure: Outcome
    ) -> Finding:
        """Finds one reason after the other, until the program does not fail without all of them."""

        def fails(part: tuple[str, ...]) -> bool:
            failed = same(self._with((*kept, *part)))
            if failed:
                self.suspects = part
            return failed

        reasons: list[tuple[str, ...]] = []
        relief = failure
        while same(relief):
            self.suspects = suspects
            found = smallest(suspects, fails)
            if not found or not fails(found):
                return self._ends(Answer.FLAKY, failure)
            reasons.append(found)
            left = tuple(key for key in self._every() if not any(key in reason for reason in reasons))
            relief = self._with(left)
            suspects = tuple(key for key in left if key not in kept)
        by_key = {change.key: change for change in self.changes}
        return Finding(
            Answer.FOUND, tuple(tuple(by_key[k] for k in reason) for reason in reasons), failure, relief, self.runs
        )

    def _with(self, on: Sequence[str]) -> Outcome:
        """One run with these changes in place."""
        wanted = set(on)
        self.runs += 1
        outcome = self.run([change.key for change in self.changes if change.key not in wanted])
        self.tell(len(wanted), outcome)
        return outcome

    def _is_failure(self, outcome: Outcome) -> bool:
        return self.match in outcome.output if self.match is not None else not outcome.passed

    def _every(self) -> tuple[str, ...]:
        return tuple(change.key for change in self.changes)

    def _keys(self, *, required: bool) -> tuple[str, ...]:
        return tuple(change.key for change in self.changes if bool(change.required) is required)

    def _ends(self, answer: Answer, failure: Outcome) -> Finding:
        return Finding(answer, (), failure, None, self.runs)
