"""The ledger as a table or as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from patcher.ledger import Entry, Ledger, key_of
from patcher.machine import Machine
from patcher.model import State

_ORDER = (State.REFUSED, State.UNREVIEWED, State.APPLIED, State.SKIPPED, State.PENDING)


@dataclass(frozen=True)
class Report:
    """Every change and where it stands, at one moment.

    Attributes:
        machine: the machine for which the patches are in place, or None.
        inactive: why nothing is patched, or None.
        entries: one per change, in the order in which they were registered.
        rewrites: training arguments that were given another value, as ``(config, field, old, new, reason)``.
    """

    machine: Machine | None
    inactive: str | None
    entries: tuple[Entry, ...]
    rewrites: tuple[tuple[str, str, str, str, str], ...] = ()

    @classmethod
    def of(cls, ledger: Ledger, inactive: str | None) -> Report:
        """The ledger as it stands now."""
        return cls(ledger.machine, inactive, tuple(ledger.entries()), tuple(_rewrites()))

    def counts(self) -> dict[str, int]:
        """How many changes are in each state, by the state's word."""
        counted = Counter(entry.state for entry in self.entries)
        return {state.value: counted[state] for state in _ORDER}

    def to_json(self) -> str:
        """A JSON object: machine, inactive, counts, changes, rewrites."""
        return json.dumps(
            {
                "machine": str(self.machine) if self.machine else None,
                "inactive": self.inactive,
                "counts": self.counts(),
                "changes": [_as_data(entry) for entry in self.entries],
                "rewrites": [
                    dict(zip(("config", "field", "old", "new", "reason"), row, strict=True)) for row in self.rewrites
                ],
            },
            indent=2,
        )

    def __str__(self) -> str:
        if self.inactive is not None:
            return f"patch_for_mac: nothing is patched: {self.inactive}"
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        totals = ", ".join(f"{count} {word}" for word, count in self.counts().items() if count)
        yield f"patch_for_mac on {self.machine}: {totals}"
        width = max((len(key_of(entry.change)) for entry in self.entries), default=0)
        for state in _ORDER:
            for entry in self.entries:
                if entry.state is state:
                    detail = entry.detail or entry.change.why
                    first, *rest = detail.splitlines()
                    yield f"  {state.value:<10} {key_of(entry.change):<{width}}  {first}"
                    yield from (f"  {'':<10} {'':<{width}}  {line}" for line in rest)
        for config, field, old, new, reason in self.rewrites:
            yield f"  rewritten  {config}.{field}: {old} -> {new}: {reason}"


def _as_data(entry: Entry) -> dict[str, object]:
    change = entry.change
    return {
        "target": key_of(change),
        "kind": type(change).__name__,
        "state": entry.state.value,
        "detail": entry.detail,
        "distribution": change.distribution,
        "installed": entry.installed,
        "reviewed": change.reviewed,
        "required": change.required,
        "why": change.why,
        "upstream": change.upstream,
        "until": change.until,
    }


def _rewrites() -> Iterator[tuple[str, str, str, str, str]]:
    from patcher.training_arguments import rewrites

    for rewrite in rewrites():
        yield rewrite.config, rewrite.field, str(rewrite.old), str(rewrite.new), rewrite.reason
