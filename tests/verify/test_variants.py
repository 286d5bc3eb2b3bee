"""What ``verify_apple.py`` says of the variants of an op."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from patcher.macs.machine import detect
from patcher.ops.variants import choice, findings
from patcher.ops.variants.findings import Finding
from patcher.verify import variants
from patcher.verify.check import Situation, Skipped

MAC = replace(detect(), simulated=False)


def _lines(monkeypatch: pytest.MonkeyPatch, found: Mapping[str, Finding], chosen: object) -> list[str]:
    monkeypatch.setattr(findings, "of", lambda op, dtype: found)
    monkeypatch.setattr(choice, "_decided", lambda op, dtype: chosen)
    return variants.table("rms_norm", Situation(MAC, False, Path())).splitlines()


def test_a_line_for_each_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what runs, and the times by width."""
    found = {"torch": Finding("", {"128": 2e-3, "2048": 4.5e-4}), "metal": Finding("", {"128": 1e-4, "2048": 1e-4})}
    lines = _lines(monkeypatch, found, SimpleNamespace(__name__="patcher.ops.metal.rms_norm"))
    right = "metal runs; torch is right (2 ms at 128; 0.45 ms at 2048), metal is right (0.1 ms at 128; 0.1 ms at 2048)"
    assert lines == [f"{name}: {right}" for name in ("float32", "float16", "bfloat16")]


def test_a_variant_that_is_refused_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch runs."""
    lines = _lines(monkeypatch, {"torch": Finding(), "metal": Finding("y of 3 x 5: 3 are off")}, None)
    assert lines[0] == "float32: torch runs; torch is right, metal is refused (y of 3 x 5: 3 are off)"


def test_a_simulated_mac_tries_them_with_full_only() -> None:
    """They run thread by thread there."""
    with pytest.raises(Skipped, match="--full"):
        variants.table("rms_norm", Situation(replace(MAC, simulated=True), False, Path()))
