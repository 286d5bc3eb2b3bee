"""The verdict for a terminal, a line for each thing that matters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from patcher.sizes import size
from patcher.trial.trial import Trial

_WIDTH = 12
_MOST = 8
"""Operators, places or arguments that are named under one heading; the report and the JSON have them all."""

_TITLES = {
    "missing": "no kernel",
    "fell_back": "on the CPU",
    "refused": "refused",
    "float64": "float64",
}


def lines(trial: Trial) -> Iterator[str]:
    """The verdict, ready to print."""
    yield f"patcher: {trial.title()}"
    for title, texts in sections(trial):
        for number, text in enumerate(texts):
            yield f"  {title if number == 0 else '':<{_WIDTH}} {text}"


def sections(trial: Trial) -> Iterator[tuple[str, list[str]]]:
    """(heading, lines under it) for everything that there is something to say about."""
    yield "verdict", [f"{trial.verdict.line} (exit code {trial.verdict.exit_code})", *trial.verdict.details]
    if not trial.used:
        yield "device", [trial.why_unused()]
    else:
        yield "memory", [memory_line(trial)]
        for kind, title in _TITLES.items():
            found = seen(trial, kind)
            if found:
                yield title, found
    if trial.rewrites():
        yield "arguments", some(trial.rewrites())
    if trial.patches():
        yield "patches", trial.patches()
    if trial.used:
        yield "training", trial.training()
    if trial.faults:
        yield "faults", [", ".join(trial.faults)]


def memory_line(trial: Trial) -> str:
    """Peak against limit."""
    memory = trial.facts["memory"]
    peak, limit = memory.get("peak_driver") or memory["peak"], memory["limit"]
    text = f"peak {size(memory['peak'])}"
    if "peak_driver" in memory:
        text += f" in tensors, {size(memory['peak_driver'])} with the allocator's own"
    return text + (f", of {size(limit)} allowed ({100 * peak / limit:.0f}%)" if limit else ", without a limit")


def seen(trial: Trial, kind: str) -> list[str]:
    """One line for each operator or rule, with the places that it came from."""
    grouped: dict[str, list[dict[str, Any]]] = {}
    for sighting in trial.facts["sightings"]:
        if sighting["kind"] == kind:
            grouped.setdefault(sighting["name"], []).append(sighting)
    return some(
        [f"{_name(kind, name)}{sum(s['count'] for s in found)} x: {_places(found)}" for name, found in grouped.items()]
    )


def _name(kind: str, name: str) -> str:
    return "" if kind == "float64" else f"{name} "


def _places(found: list[dict[str, Any]]) -> str:
    texts = [
        sighting["place"] + (f" (through {sighting['through']})" if sighting["through"] else "") for sighting in found
    ]
    return ", ".join(texts[:3]) + (f" and {len(texts) - 3} more places" if len(texts) > 3 else "")


def some(texts: list[str]) -> list[str]:
    """The first few, and how many there are beyond them."""
    more = len(texts) - _MOST
    return [*texts[:_MOST], f"and {more} more: see --report or --json"] if more > 0 else texts
