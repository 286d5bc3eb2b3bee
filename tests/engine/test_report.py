"""The ledger as text, as a table and as JSON; the command that prints it is in tests/test_report_cli.py."""

from __future__ import annotations

import importlib
import io
import json

import pytest
from rich.console import Console

from patcher.engine.ledger import Ledger
from patcher.engine.report import Report
from tests.engine.conftest import OURS, Library, patch
from tests.machines import M3_MAX

REWRITE = ("SFTConfig", "optim", "adamw_8bit", "adamw_torch_fused", "no 8-bit kernel")


@pytest.fixture
def report(library: Library, ledger: Ledger) -> Report:
    """A change that was refused, one of a version that nobody read, one that is not due, and the rest."""
    library.write("lib", "def f(a, b=1): return a\ndef g(): return 2\n")
    library.write(OURS, "def f(a, b=1): return -a\ndef g(): return 3\n")
    library.distribution("lib", "2.0")
    lib = importlib.import_module("lib")
    ledger.machine = M3_MAX
    right, wrong = patch("lib:f", "f", why="f is wrong on mps"), patch("lib:g", "g", expects="(a)")
    ledger.register([patch("later:f", "f", why="it is imported later"), right, wrong])
    ledger.apply(right, lib)
    ledger.apply(wrong, lib)
    ledger.notes.append("a note")
    made = Report(ledger.machine, None, tuple(ledger.entries()), (REWRITE,), tuple(ledger.notes))
    ledger.undo()
    return made


def test_text_has_a_headline_and_what_needs_attention_first(report: Report) -> None:
    """Refused before unreviewed before pending; the reason is that of the change, or what was found."""
    headline, *lines = str(report).splitlines()
    assert headline == ("patch_for_mac on Apple M3 Max, 36 GB, macOS 15.5: 1 refused, 1 unreviewed, 1 pending")
    states = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
    assert states == ["refused", "unreviewed", "pending", "rewritten", "note"]
    assert any("lib:f" in line and "f is wrong on mps" in line for line in lines)
    assert any("expected" in line and "(a)" in line for line in lines)


def test_json_is_complete(report: Report) -> None:
    data = json.loads(report.to_json())
    assert data["machine"] == str(M3_MAX) and data["inactive"] is None and data["notes"] == ["a note"]
    assert data["counts"] == {"refused": 1, "unreviewed": 1, "applied": 0, "skipped": 0, "pending": 1}
    assert data["rewrites"] == [dict(zip(("config", "field", "old", "new", "reason"), REWRITE, strict=True))]
    states = {change["target"]: (change["state"], change["installed"]) for change in data["changes"]}
    assert states == {"later:f": ("pending", None), "lib:f": ("unreviewed", "2.0"), "lib:g": ("refused", "2.0")}
    assert all(change["required"] == (change["needed_for"] is not None) for change in data["changes"])


def test_a_terminal_gets_the_same_as_a_table(report: Report) -> None:
    shown = io.StringIO()
    Console(file=shown, width=160).print(report)
    lines = [line.split() for line in shown.getvalue().splitlines()]
    firsts = [words[0] for words in lines if words]
    assert [word for word in firsts if word in ("refused", "unreviewed", "pending", "rewritten", "note")] == [
        "refused", "unreviewed", "pending", "rewritten", "note"
    ]  # fmt: skip


def test_where_nothing_is_patched_the_reason_is_all_there_is(ledger: Ledger) -> None:
    report = Report.of(ledger, "no mps device here")
    assert str(report) == "patch_for_mac: nothing is patched: no mps device here"
    assert json.loads(report.to_json())["inactive"] == "no mps device here"
