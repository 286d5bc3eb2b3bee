"""The meter's figures as tables for people."""

from __future__ import annotations

from collections.abc import Iterable
from io import StringIO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from patcher.simulator.estimate import Estimate
from patcher.simulator.usage import OUTSIDE, Counts, Usage
from patcher.sizes import size

MOST_ROWS = 12
"""Rows of a table; what is beyond them is one row."""


def render(usage: Usage, estimate: Estimate | None = None, *, rows: int = MOST_ROWS) -> RenderableType:
    """Totals, tables by operator, module and phase, and the expected time with its assumptions.

    Args:
        usage: what the meter counted.
        estimate: of `patcher.simulator.estimate.estimate`; without it nothing is said about time.
        rows: of each table.
    """
    by_op, by_module = (estimate.by_op, estimate.by_module) if estimate else ({}, {})
    parts: list[RenderableType] = [
        _totals(usage),
        _table("by operator", "operator", usage.by_op, by_op, rows),
        _table("by module, without its children", "module", usage.by_module, by_module, rows),
        _table("by phase", "phase", usage.by_phase, {}, rows),
    ]
    if estimate is not None:
        parts.append(_expected(estimate))
    return Group(*parts)


def as_text(usage: Usage, estimate: Estimate | None = None, *, width: int = 120) -> str:
    """`render` as plain text."""
    console = Console(file=StringIO(), width=width, color_system=None)
    console.print(render(usage, estimate))
    file = console.file
    assert isinstance(file, StringIO)
    return file.getvalue()


def _totals(usage: Usage) -> Table:
    table = Table.grid(padding=(0, 2))
    copies = usage.copies
    for name, value in (
        ("kernels", f"{usage.dispatches:,}"),
        ("read", size(usage.bytes_read)),
        ("written", size(usage.bytes_written)),
        ("arithmetic", f"{amount(usage.flops)}FLOP"),
        ("peak memory", f"{size(usage.peak_bytes)} of tensors, {size(usage.reserved_bytes)} reserved"),
        ("to the device", f"{size(copies.to_device_bytes)} in {copies.to_device:,} copies"),
        ("to the host", f"{size(copies.to_host_bytes)} in {copies.to_host:,} copies"),
        ("waits", f"{usage.synchronizations:,}"),
        ("optimizer steps", f"{usage.optimizer_steps:,}"),
    ):
        table.add_row(name, Text(value))
    return table


def _table(title: str, label: str, parts: dict[str, Counts], seconds: dict[str, float], rows: int) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(label, overflow="fold")
    for heading in ("kernels", "read", "written", "FLOP", *(["expected"] if seconds else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    names = sorted(parts, key=lambda name: (-seconds.get(name, 0.0), -parts[name].bytes, name))
    for name in names[:rows]:
        _add(table, name if name != OUTSIDE else "(outside of modules)", parts[name], [seconds.get(name)], seconds)
    beyond = names[rows:]
    if beyond:
        total = sum((parts[name] for name in beyond), Counts())
        _add(table, f"({len(beyond)} more)", total, (seconds.get(name) for name in beyond), seconds)
    return table


def _add(table: Table, name: str, counts: Counts, times: Iterable[float | None], seconds: dict[str, float]) -> None:
    cells = [f"{counts.dispatches:,}", size(counts.bytes_read), size(counts.bytes_written), amount(counts.flops)]
    if seconds:
        cells.append(duration(sum(time or 0.0 for time in times)))
    table.add_row(Text(name), *cells)


def _expected(estimate: Estimate) -> Group:
    limits = ", ".join(f"{duration(seconds)} {name}" for name, seconds in estimate.limits.items())
    lines = [f"\non {estimate.mac}: {duration(estimate.seconds)} expected"]
    if estimate.step_seconds is not None:
        lines[0] += f", {duration(estimate.step_seconds)} for an optimizer step"
    lines += [
        f"  GPU {duration(estimate.gpu_seconds)} ({limits}), host {duration(estimate.host_seconds)}: the longer counts",
        f"  waiting {duration(estimate.wait_seconds)}, copies {duration(estimate.copy_seconds)}",
        "assuming",
        *(f"  {line}" for line in estimate.assumptions),
    ]
    return Group(*(Text(line) for line in lines))


def amount(count: float) -> str:
    """A number for people: ``"1.23 G"``."""
    for factor, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} "


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds >= 60:
        return f"{seconds / 60:.3g} min"
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return "0 s" if seconds == 0 else f"{seconds / 1e-9:.3g} ns"
