"""Trainings that are killed with SIGKILL and resumed end with the bits of an uninterrupted one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.interposer import library
from tests.process import run_module

pytestmark = pytest.mark.slow

SAMPLE = {"--operations": 12, "--random": 10}
"""Kills in `make test`. `make kills` has 200: every operation, and the rest at random moments."""


def test_killed_runs_resume_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """At file operations of one save, torn writes included, and at random moments of training and saving: no corrupt
    resume, at most one save interval lost, the end equal bit for bit, and nothing of killed saves left over."""
    wanted = int(os.environ.get("PATCHER_KILLS", "0"))
    numbers = {"--kills": wanted} if wanted else SAMPLE
    options = [text for name, number in numbers.items() for text in (name, str(number))]
    out = tmp_path / "result.json"
    run_module("tests.e2e.kills", tmp_path / "runs", out, *options, timeout=3600, LD_PRELOAD=str(library(tmp_path)))
    result = json.loads(out.read_text())
    print({name: value for name, value in result.items() if name != "operations"})
    assert result["wrong"] == []
    assert result["same twice"], "two uninterrupted runs differ, so nothing can be said about resumed ones"
    # what a save consists of: folders, files in pieces, flushes, the rename, the removal of the one before
    assert len(result["operations"]) > 60
    assert {"mkdir", "open", "write", "writev", "fsync", "rename", "unlinkat", "rmdir"} <= set(result["operations"])
    assert result["at operations"] + result["at random"] >= (wanted or sum(SAMPLE.values()))
