"""The variant that runs: the fastest that is right, or the one that is asked for if it is right."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest
import torch

from patcher.environment import FORCE, WITHOUT
from patcher.ops.metal import rms_norm as metal
from patcher.ops.variants import choice, findings
from patcher.ops.variants.choice import Choice
from patcher.ops.variants.findings import Finding

SLOW, FAST, WRONG = Finding("", {"128": 0.2, "2048": 0.1}), Finding("", {"128": 0.1, "2048": 0.1}), Finding("3 are off")


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WITHOUT, raising=False)
    monkeypatch.delenv(FORCE, raising=False)


def _chosen(
    monkeypatch: pytest.MonkeyPatch, platform: str, found: Mapping[str, Finding] | None, **variables: str
) -> object:
    def of(op: str, dtype: torch.dtype) -> Mapping[str, Finding]:
        assert found is not None, "nothing was to be tried"
        return found

    monkeypatch.setattr(choice.sys, "platform", platform)
    monkeypatch.setattr(findings, "of", of)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Choice("rms_norm")[torch.float32]


def test_the_fastest_that_is_right_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a Mac, by the sum of its times."""
    assert _chosen(monkeypatch, "darwin", {"torch": SLOW, "metal": FAST}) is metal
    assert _chosen(monkeypatch, "darwin", {"torch": FAST, "metal": SLOW}) is None


def test_what_is_wrong_is_never_used_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where it is asked for: what differed is in the warning."""
    for variables in ({}, {FORCE: "metal"}):
        caplog.clear()
        assert _chosen(monkeypatch, "darwin", {"torch": SLOW, "metal": WRONG}, **variables) is None
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert "rms_norm" in caplog.text and "3 are off" in caplog.text


def test_a_simulated_mac_runs_torch_and_tries_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a variant is asked for."""
    assert _chosen(monkeypatch, "linux", None) is None
    assert _chosen(monkeypatch, "linux", {"torch": Finding(), "metal": Finding()}, **{FORCE: "metal"}) is metal


def test_what_is_left_out_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where torch is asked for."""
    assert _chosen(monkeypatch, "darwin", None, **{WITHOUT: "metal:rms_norm"}) is None
    assert _chosen(monkeypatch, "darwin", None, **{WITHOUT: "", FORCE: "torch"}) is None
    assert _chosen(monkeypatch, "darwin", {"torch": FAST, "metal": SLOW}, **{FORCE: "metal:rms_norm"}) is metal


def test_it_is_decided_once_and_torch_runs_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial runs the op itself on mps."""
    asked = []

    def of(op: str, dtype: torch.dtype) -> Mapping[str, Finding]:
        asked.append(made[dtype])
        return {"torch": SLOW, "metal": FAST}

    monkeypatch.setattr(choice.sys, "platform", "darwin")
    monkeypatch.setattr(findings, "of", of)
    made = Choice("rms_norm")
    assert [made[torch.float16], made[torch.float16]] == [metal, metal] and asked == [None]


def test_other_types_run_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metal has no double."""
    monkeypatch.setattr(choice.sys, "platform", "darwin")
    assert Choice("rms_norm")[torch.float64] is None
