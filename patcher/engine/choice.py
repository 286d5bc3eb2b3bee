"""Which of all changes are in force: one for each target, without those that the user switches off."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from patcher.engine.model import AnyChange
from patcher.engine.targets import installed_version, is_reviewed
from patcher.errors import InvalidSwitch, compose


def one_for_each_target(
    changes: Iterable[AnyChange], version_of: Callable[[str], str | None] = installed_version
) -> tuple[AnyChange, ...]:
    """Of several changes for one target, which are for different upstream forms, that for the version at hand.

    Where none of them was reviewed for it, the last one. ``version_of`` gives the version of a distribution; the
    installed one by default.
    """
    kept: dict[str, AnyChange] = {}
    for change in changes:
        known = kept.get(change.key)
        if known is None or not is_reviewed(known, version_of(known.distribution)):
            kept[change.key] = change
    return tuple(kept.values())


def switched_off(changes: Sequence[AnyChange], patterns: Iterable[str]) -> frozenset[str]:
    """The keys of the changes that answer to one of ``patterns``.

    Args:
        changes: those that can be switched off.
        patterns: each a name that a change answers to (`Change.names`), or a glob for such names.

    Raises:
        InvalidSwitch: a pattern matches nothing; the message has the nearest names.
    """
    found: set[str] = set()
    for pattern in patterns:
        keys = {change.key for change in changes if any(fnmatchcase(name, pattern) for name in change.names)}
        if not keys:
            raise InvalidSwitch(_nothing_answers(pattern, changes))
        found |= keys
    return frozenset(found)


def _nothing_answers(pattern: str, changes: Sequence[AnyChange]) -> str:
    names = dict.fromkeys(name for change in changes for name in change.names)
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.5)
    return compose(
        "there is no change of this name to be switched off",
        found=repr(pattern),
        expected="a library, a module, a target or a glob for them"
        + (f"; the nearest: {', '.join(near)}" if near else ""),
        left="nothing changed",
        run="python -m patcher report",
    )
