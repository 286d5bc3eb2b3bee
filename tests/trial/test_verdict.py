"""What is said about a trial: pure functions of what was found."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import pytest

from patcher.macs.mac import GIB, parse
from patcher.sizes import size
from patcher.trial import text
from patcher.trial.chart import chart
from patcher.trial.facts import MOST_SAMPLES, Samples
from patcher.trial.page import page
from patcher.trial.trial import Trial, conclude
from patcher.trial.verdict import arithmetic
from patcher.trial.watch import End

REFUSAL = (
    "MPS backend out of memory (MPS allocated: 5.50 GiB, other allocations: 512.00 MiB, max allowed: 6.40 GiB). "
    "Tried to allocate 1.00 GiB on private pool. Use PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable upper limit"
)
EXCEPTION = {"type": "RuntimeError", "message": REFUSAL, "place": "train.py:9", "out of memory": REFUSAL}
SIGHTING = {"kind": "fell_back", "name": "aten::erfinv", "place": "train.py:3", "through": "", "count": 4}


def facts(**more: Any) -> dict[str, Any]:
    """The account of a script that did a little on the device."""
    return {
        "seconds": 2.0,
        "torch": True,
        "ending": {},
        "steps": 3,
        "patches": None,
        "memory": {"current": 1, "peak": 3 * GIB, "blocks": 1, "limit": 6 * GIB},
        "samples": [[0.0, 0], [1.0, 3 * GIB], [2.0, GIB]],
        "recommended": 5 * GIB,
        "operators": 12,
        "sightings": [],
        "usage": None,
        "estimate": None,
        **more,
    }


def trial(code: int | None = 0, signal: int | None = None, mac: str = "M1 8GB", **more: Any) -> Trial:
    account = json.dumps(facts(**more))
    end = End(code=code, signal=signal, seconds=2.5, peak_rss=GIB, facts=account, crash="")
    return conclude("train.py --lr 1", parse(mac), end, patched=False, faults=())


def test_the_sum_that_did_not_fit() -> None:
    """What was held, asked for and allowed; whence the limit; the smallest Mac with this chip that allows it.

    5.5 + 0.5 + 1 = 7 GiB > 6.4 GiB = 1.28 x 5 GiB. An M1 has 8 or 16 GB, and 1.28 times two thirds of 16 are 13.7.
    """
    mac = parse("M1 8GB")
    lines = arithmetic(REFUSAL, {"recommended": 5 * GIB}, mac)
    assert lines[0] == "5.50 GiB held + 512 MiB other + 1 GiB asked for = 7 GiB, and 6.40 GiB are allowed"
    assert lines[1] == "allowed: 1.28 x 5 GiB, the part of 8 GiB that Metal recommends"
    assert lines[2].startswith("an M1 16GB would have allowed it")


def test_another_chip_where_none_of_this_kind_has_the_memory() -> None:
    """100 GiB fit on no M1; the least memory on which they fit is taken from all Macs; a TiB fits on none."""
    mac = parse("M1 8GB")
    larger = arithmetic(REFUSAL.replace("1.00 GiB on", "100.00 GiB on"), {"recommended": 5 * GIB}, mac)[2]
    assert "GB would have allowed it" in larger and "M1 8GB" not in larger and "M1 16GB" not in larger
    assert arithmetic(REFUSAL.replace("5.50 GiB", "1024.00 GiB"), {}, mac)[2] == "no Mac would have allowed it"


@pytest.mark.parametrize(
    ("found", "kind", "line"),
    [
        (trial(), "finished", "finished"),
        (trial(1, ending={"exception": EXCEPTION}), "out of memory", "out of memory at train.py:9"),
        (trial(None, 9), "killed", "killed by SIGKILL (Killed)"),
        (trial(None, 40), "killed", "killed by signal 40"),
        (trial(4), "exit", "ended itself with exit code 4"),
    ],
)
def test_the_kinds_of_verdict(found: Trial, kind: str, line: str) -> None:
    """One word for programs, one line for people."""
    assert (found.verdict.kind, found.verdict.line) == (kind, line)
    assert f"  verdict      {line} (exit code {found.verdict.exit_code})" in text.lines(found)


def test_a_process_without_an_account_was_not_started() -> None:
    """It ended before the script: nothing is claimed about the device."""
    end = End(code=2, signal=None, seconds=0.1, peak_rss=1, facts="", crash="")
    found = conclude("train.py", parse("M1 8GB"), end, patched=True, faults=())
    assert found.verdict.line == "the script was not started: exit code 2"
    assert not any("CPU" in line for line in text.lines(found))


def test_what_was_refused_is_told_with_its_places() -> None:
    """Operators on the CPU, their number and place; many are cut short."""
    lines = list(text.lines(trial(sightings=[SIGHTING, {**SIGHTING, "place": "a.py:1", "count": 1}])))
    assert "  on the CPU   aten::erfinv 5 x: train.py:3, a.py:1" in lines
    many = [{**SIGHTING, "name": f"aten::op{number}"} for number in range(20)]
    assert "               and 12 more: see --report or --json" in list(text.lines(trial(sightings=many)))


def test_memory_against_the_limit() -> None:
    """Half of what is allowed; no percentage without a limit."""
    assert "  memory       peak 3 GiB, of 6 GiB allowed (50%)" in list(text.lines(trial()))
    unlimited = {"current": 0, "peak": GIB, "blocks": 0, "limit": 0}
    assert "  memory       peak 1 GiB, without a limit" in list(text.lines(trial(memory=unlimited)))


def test_a_script_that_leaves_mps_alone_is_told_so() -> None:
    """It ran on the CPU: the most important thing to know about a trial that finished."""
    nothing = {"current": 0, "peak": 0, "blocks": 0, "limit": 6 * GIB}
    lines = list(text.lines(trial(memory=nothing, operators=0)))
    assert any("put nothing on mps: it ran on the CPU" in line for line in lines)
    assert not any(line.startswith("  memory") for line in lines)


class Tags(HTMLParser):
    """Checks that every tag is closed, and remembers what a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing() -> None:
    """Tags match, texts are escaped, the chart and every part are there, and nothing comes from elsewhere."""
    use = {"dispatches": 5, "bytes_read": 2048, "bytes_written": 10, "flops": 3_000_000_000}
    usage = {"by_op": {"aten::mm": use}, "by_module": {"": use}, "timeline": []}
    found = trial(sightings=[{**SIGHTING, "place": "<b>&.py:1"}], usage=usage)
    html = page(found)
    tags = Tags()
    tags.feed(html)
    assert tags.open == [] and tags.loads == []
    assert "&lt;b&gt;&amp;.py:1" in html and "<b>&.py" not in html
    for part in (
        "train.py --lr 1",
        "finished",
        "<svg",
        "aten::mm",
        "outside of modules",
        "3 G",
        "2 KiB",
        "aten::erfinv",
    ):
        assert part in html
    assert "url(" not in html and "@import" not in html


def test_the_chart_has_the_limit_where_it_is_in_sight() -> None:
    """A quarter of the limit or more: it is drawn; a trifle: it would flatten the curve. All points lie inside."""
    near = chart([(0, 0), (1, 3 * GIB), (2, GIB)], 6 * GIB, "seconds")
    assert "limit 6 GiB" in near
    assert "limit" not in chart([(0, 0), (1, GIB)], 6 * GIB, "seconds").replace("aria", "")
    points = near.partition('<polyline class="line" points="')[2].partition('"')[0].split()
    assert points[0] == "76.0,206.0"  # 0 bytes: on the axis
    assert all(76 <= float(x) <= 844 and 18 <= float(y) <= 206 for x, y in (point.split(",") for point in points))
    assert chart([(0, 1)], 0, "seconds") == ""


def test_samples_are_thinned_out() -> None:
    """However long a script runs, its memory over time is at most so many points, over the whole time, in order."""
    samples = Samples()
    for second in range(5 * MOST_SAMPLES):
        samples.add(float(second), second)
    times = [time for time, _ in samples.points]
    assert MOST_SAMPLES // 4 < len(times) < MOST_SAMPLES
    assert times == sorted(times) and times[0] < 10 and times[-1] > 5 * MOST_SAMPLES - 20


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (2**20, "1 MiB"), (GIB * 5 // 4, "1.25 GiB"), (2**41, "2 TiB")],
)
def test_sizes_for_people(count: int, words: str) -> None:
    """Binary units, decimals only where there are any."""
    assert size(count) == words
