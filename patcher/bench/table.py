"""The figures of several runs side by side, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from patcher.bench.command import Run

MIB = 2**20
NOTES = (
    "Milliseconds and MiB. step: forward, backward and AdamW of LoRA; rows/s: of steps;",
    "token: greedy generation; peak: on mps live tensors, on cpu the whole process;",
    "loss: after one step; apart: relative to the last device's.",
)
SIMULATED = "The mps device is simulated: its time is this machine's CPU's, not a Mac's."


def show(runs: Sequence[Run], console: Console, *, simulated: bool) -> None:
    """Prints one line for each run, those of one model and dtype together, then what failed."""
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    for name in ("model", "dtype", "device"):
        table.add_column(name, no_wrap=True)
    for name in ("forward", "step", "rows/s", "token", "peak", "loss", "apart"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        last = _group(runs, run)[-1]
        table.add_row(*_cells(run, reference=last), end_section=run is last)
    console.print(table)
    for run in runs:
        if run.figures is None:
            order = run.order
            said = f"{order.model} {order.dtype} {order.device} failed: {run.error}"
            console.print(said, markup=False, highlight=False, soft_wrap=True)
    for model, names in _fell_back(runs).items():
        console.print(f"{model} ran on the CPU: {', '.join(sorted(names))}", highlight=False, soft_wrap=True)
    for note in (*NOTES, *([SIMULATED] if simulated else [])):
        console.print(note, style="dim", highlight=False, soft_wrap=True)


def as_json(runs: Sequence[Run]) -> str:
    """A list with the order, the figures and the error of each run."""
    return json.dumps([asdict(run) for run in runs], indent=2)


def _fell_back(runs: Sequence[Run]) -> dict[str, set[str]]:
    """The operators that had no mps kernel, by model."""
    found: dict[str, set[str]] = {}
    for run in runs:
        if run.figures is not None and run.figures.fell_back:
            names = {name.removeprefix("aten::") for name in run.figures.fell_back}
            found.setdefault(run.order.model, set()).update(names)
    return found


def _group(runs: Sequence[Run], run: Run) -> list[Run]:
    key = (run.order.model, run.order.dtype)
    return [other for other in runs if (other.order.model, other.order.dtype) == key]


def _cells(run: Run, reference: Run) -> list[str]:
    order, found = run.order, run.figures
    head = [order.model, order.dtype, order.device]
    if found is None:
        return [*head, "failed", *[""] * 6]
    return [
        *head,
        _milliseconds(found.forward),
        _milliseconds(found.step),
        f"{order.rows / found.step:.1f}",
        "" if found.generation is None else _milliseconds(found.generation),
        f"{found.peak / MIB:.1f}",
        f"{found.losses[-1]:.5f}",
        _other(run, reference),
    ]


def _other(run: Run, reference: Run) -> str:
    """How far the loss is from that of the last device of the group."""
    if run is reference or run.figures is None or reference.figures is None:
        return ""
    return f"{abs(run.figures.losses[-1] / reference.figures.losses[-1] - 1):.0e}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f}"
