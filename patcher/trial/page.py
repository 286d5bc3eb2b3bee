"""The report of a trial as one HTML page without anything from elsewhere; light or dark as the reader's system is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from patcher.sizes import size
from patcher.trial import text
from patcher.trial.chart import chart
from patcher.trial.trial import Trial

MOST_ROWS = 30

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2129; --dim: #5c6470; --paper: #ffffff; --card: #f4f5f7; --rule: #d9dce1;
  --good: #1a7f4b; --bad: #b3261e; --line: #2f6fde; --area: #2f6fde22; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --dim: #9aa2ad; --paper: #15181d; --card: #1f242b;
  --rule: #363c45; --good: #5ad08f; --bad: #ff8a80; --line: #7fb0ff; --area: #7fb0ff26; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.3rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2.2rem 0 .6rem; }
h1 code { font-size: inherit; }
p { margin: .3rem 0; } .dim { color: var(--dim); } code { font: 13px/1.45 ui-monospace, Menlo, Consolas, monospace; }
.verdict { margin: 1.2rem 0; padding: .9rem 1.1rem; border-left: 5px solid var(--bad); background: var(--card); }
.verdict.good { border-color: var(--good); } .verdict strong { font-size: 1.1rem; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem; }
.cards div { background: var(--card); padding: .7rem .9rem; } .cards b { display: block; font-size: 1.2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { color: var(--dim); font-weight: 600; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td code { overflow-wrap: anywhere; } svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--dim); font: 11px system-ui, sans-serif; } svg .end { text-anchor: end; }
svg .middle { text-anchor: middle; } .grid { stroke: var(--rule); }
.line { fill: none; stroke: var(--line); stroke-width: 1.6; }
.area { fill: var(--area); } line.limit { stroke: var(--bad); stroke-dasharray: 6 4; }
svg text.limit { fill: var(--bad); }
li { margin: .15rem 0; }
"""

_KINDS = {
    "missing": "no kernel on mps: NotImplementedError",
    "fell_back": "ran on the CPU",
    "refused": "refused",
    "float64": "float64 refused",
}


def page(trial: Trial) -> str:
    """The whole page."""
    body = [
        f"<h1><code>{escape(trial.command)}</code></h1>",
        f'<p class="dim">on {escape(trial.title())}</p>',
        _verdict(trial),
        *(_device(trial) if trial.used else [f"<p>{escape(trial.why_unused())}</p>"]),
        _list("Training arguments that were changed", trial.rewrites()),
        _list("Patches", trial.patches()),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(trial.command)} on a simulated {escape(trial.mac.name)}</title>"
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(part for part in body if part) + "\n</body></html>\n"
    )


def _verdict(trial: Trial) -> str:
    details = "".join(f"<p>{escape(line)}</p>" for line in trial.verdict.details)
    kind = "verdict good" if trial.verdict.good else "verdict"
    code = f'<p class="dim">exit code {trial.verdict.exit_code}, after {trial.end.seconds:.0f} s on this machine</p>'
    return f'<div class="{kind}"><strong>{escape(trial.verdict.line)}</strong>{details}{code}</div>'


def _device(trial: Trial) -> list[str]:
    return [
        _cards(trial),
        _memory(trial),
        _sightings(trial),
        _usage_table(trial, "by_op", "By operator", "operator"),
        _usage_table(trial, "by_module", "By module", "module, without its children"),
        _list("Faults that were switched on", list(trial.faults)),
        _list("What the expected speed rests on", trial.assumptions()),
    ]


def _cards(trial: Trial) -> str:
    memory = trial.facts["memory"]
    peak = memory.get("peak_driver") or memory["peak"]
    limit = memory["limit"]
    cards = [
        (size(peak), f"peak memory{f' of {size(limit)} allowed' if limit else ', no limit'}"),
        (f"{trial.facts['steps']:,}", "optimizer steps"),
        (f"{trial.facts['operators']:,}", "operator calls on the device"),
    ]
    if trial.speed() is not None:
        cards.insert(1, (trial.speed_in_short(), f"expected on an {trial.mac.name}"))
    return (
        '<div class="cards">'
        + "".join(f"<div><b>{escape(value)}</b>{escape(label)}</div>" for value, label in cards)
        + "</div>"
    )


def _memory(trial: Trial) -> str:
    points, axis = trial.timeline()
    drawing = chart(points, trial.facts["memory"]["limit"], axis)
    return f'<h2>Memory over time</h2>{drawing}<p class="dim">{escape(text.memory_line(trial))}</p>' if drawing else ""


def _sightings(trial: Trial) -> str:
    rows = [
        (
            escape(_KINDS[sighting["kind"]]),
            f"<code>{escape(sighting['name'])}</code>",
            f"<code>{escape(sighting['place'])}</code>"
            + (f'<br><span class="dim">through {escape(sighting["through"])}</span>' if sighting["through"] else ""),
            f"{sighting['count']:,}",
        )
        for sighting in trial.facts["sightings"]
    ]
    if not rows:
        nothing = "Nothing: every operator has a kernel on mps, and no float64 was asked for."
        return f"<h2>What a Mac refuses</h2><p>{nothing}</p>"
    return f"<h2>What a Mac refuses</h2>{_table(('what', 'operator or rule', 'where', 'times'), rows, 3)}"


def _usage_table(trial: Trial, key: str, title: str, label: str) -> str:
    found: dict[str, dict[str, Any]] = (trial.facts.get("usage") or {}).get(key, {})
    if not found:
        return ""
    seconds: dict[str, float] = (trial.facts.get("estimate") or {}).get(key, {})
    rows = [
        (
            f"<code>{escape(name or 'outside of modules')}</code>",
            f"{counts['dispatches']:,}",
            size(counts["bytes_read"]),
            size(counts["bytes_written"]),
            _amount(counts["flops"]),
            _time(seconds.get(name)),
        )
        for name, counts in list(found.items())[:MOST_ROWS]
    ]
    more = f'<p class="dim">and {len(found) - MOST_ROWS} more, in the JSON</p>' if len(found) > MOST_ROWS else ""
    return f"<h2>{title}</h2>{_table((label, 'kernels', 'read', 'written', 'FLOP', 'GPU time'), rows, 1)}{more}"


def _time(seconds: float | None) -> str:
    """What is expected on the Mac, for the whole run."""
    if seconds is None:
        return ""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _amount(count: float) -> str:
    for factor, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers_from: int) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        inner = (f"<{tag}{' class=n' if i >= numbers_from else ''}>{cell}</{tag}>" for i, cell in enumerate(cells))
        return f"<tr>{''.join(inner)}</tr>"

    return f'<div class="scroll"><table>{row(head, "th")}{"".join(row(cells, "td") for cells in rows)}</table></div>'


def _list(title: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<h2>{escape(title)}</h2><ul>{items}</ul>" if items else ""
