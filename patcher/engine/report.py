"""The ledger as a table or as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from patcher.engine.ledger import Entry, Ledger
from patcher.engine.model import EVERYWHERE, State
from patcher.macs.machine import Machine

if TYPE_CHECKING:
    from rich.console import RenderableType

_ORDER = (State.REFUSED, State.UNREVIEWED, State.APPLIED, State.SKIPPED, State.PENDING)

_STYLES = {State.REFUSED: "bold red", State.UNREVIEWED: "yellow", State.APPLIED: "green"}


@dataclass(frozen=True)
class Report:
    """Every change and where it stands, at one moment.

    Attributes:
        machine: the machine for which the patches are in place, or None.
        inactive: why nothing is patched, or None.
        entries: one per change, in the order in which they were registered.
        rewrites: training arguments that were given another value, as ``(config, field, old, new, reason)``.
        notes: what else the user should know.
    """

    machine: Machine | None
    inactive: str | None
    entries: tuple[Entry, ...]
    rewrites: tuple[tuple[str, str, str, str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, ledger: Ledger, inactive: str | None) -> Report:
        """The ledger as it stands now."""
        return cls(ledger.machine, inactive, tuple(ledger.entries()), tuple(_rewrites()), tuple(ledger.notes))

    def counts(self) -> dict[str, int]:
        """How many changes are in each state, by the state's word."""
        counted = Counter(entry.state for entry in self.entries)
        return {state.value: counted[state] for state in _ORDER}

    def to_json(self) -> str:
        """A JSON object: machine, inactive, counts, changes, rewrites, notes."""
        return json.dumps(
            {
                "machine": str(self.machine) if self.machine else None,
                "inactive": self.inactive,
                "counts": self.counts(),
                "changes": [_as_data(entry) for entry in self.entries],
                "rewrites": [
                    dict(zip(("config", "field", "old", "new", "reason"), row, strict=True)) for row in self.rewrites
                ],
                "notes": list(self.notes),
            },
            indent=2,
        )

    def __str__(self) -> str:
        if self.inactive is not None:
            return f"patch_for_mac: nothing is patched: {self.inactive}"
        return "\n".join(self._lines())

    def __rich__(self) -> RenderableType:
        """The same for a terminal: a table."""
        from rich.table import Table
        from rich.text import Text

        if self.inactive is not None:
            return Text(str(self))
        table = Table(title=self._headline(), title_justify="left", title_style="bold", box=None, pad_edge=False)
        table.add_column("state", no_wrap=True)
        table.add_column("change", overflow="fold")
        table.add_column("detail", overflow="fold")
        for entry in self._sorted():
            style = _STYLES.get(entry.state, "dim")
            table.add_row(Text(entry.state.value, style), Text(entry.change.key), Text(_detail(entry)))
        for config, field, old, new, reason in self.rewrites:
            table.add_row(Text("rewritten", "green"), Text(f"{config}.{field}"), Text(f"{old} -> {new}: {reason}"))
        for note in self.notes:
            table.add_row(Text("note", "yellow"), Text(""), Text(note))
        return table

    def _headline(self) -> str:
        totals = ", ".join(f"{count} {word}" for word, count in self.counts().items() if count)
        return f"patch_for_mac on {self.machine}: {totals}"

    def _sorted(self) -> list[Entry]:
        return sorted(self.entries, key=lambda entry: _ORDER.index(entry.state))

    def _lines(self) -> Iterator[str]:
        yield self._headline()
        width = max((len(entry.change.key) for entry in self.entries), default=0)
        for entry in self._sorted():
            first, *rest = _detail(entry).splitlines()
            yield f"  {entry.state.value:<10} {entry.change.key:<{width}}  {first}"
            yield from (f"  {'':<10} {'':<{width}}  {line}" for line in rest)
        for config, field, old, new, reason in self.rewrites:
            yield f"  rewritten  {config}.{field}: {old} -> {new}: {reason}"
        for note in self.notes:
            yield f"  note       {note}"


def _detail(entry: Entry) -> str:
    detail = entry.detail or entry.change.why
    return f"{detail} (on every device; without={EVERYWHERE!r} leaves it out)" if entry.change.everywhere else detail


def _as_data(entry: Entry) -> dict[str, object]:
    change = entry.change
    return {
        "target": change.key,
        "kind": type(change).__name__,
        EVERYWHERE: change.everywhere,
        "state": entry.state.value,
        "detail": entry.detail,
        "distribution": change.distribution,
        "installed": entry.installed,
        "reviewed": change.reviewed,
        "required": change.required,
        "needed_for": change.needed_for,
        "why": change.why,
        "upstream": asdict(change.upstream),
        "until": change.until,
    }


def _rewrites() -> Iterator[tuple[str, str, str, str, str]]:
    from patcher.training.arguments import rewrites

    for rewrite in rewrites():
        yield rewrite.config, rewrite.field, str(rewrite.old), str(rewrite.new), rewrite.reason
