"""Cases run in processes of their own, and one that takes its process along costs nothing but itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest

from patcher.calibration.parts import Part
from patcher.calibration.runner import Cases, NoAnswer

pytestmark = pytest.mark.slow

PART = Part("misbehaving", "tests.calibration.misbehaving", "", case_seconds=1, seconds=60)


def run_all(part: Part, device: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every case's result."""
    with Cases(part, None, device) as cases:
        return {name: cases.run(name) for name in cases.names}


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTORCH_MPS_HIGH_WATERMARK_RATIO", "0.5")
        patch.setenv("PATCHER_WITHOUT", "torch")
        patch.setenv("MTL_SHADER_VALIDATION", "1")
        return run_all(PART, {})


def test_every_case_has_a_result(found: dict[str, dict[str, Any]]) -> None:
    """Exceptions, crashes and hangs are results; what a case prints is none."""
    assert {name: result["outcome"] for name, result in found.items()} == {
        "works": "ok",
        "raises": "raised",
        "crashes": "crashed",
        "hangs": "hung",
        "prints": "ok",
        "works again": "ok",
    }
    assert found["raises"] == {"outcome": "raised", "kind": "ValueError", "text": "in .../file.py"}
    assert found["crashes"]["text"] == "ended by signal 6"
    assert found["hangs"]["text"] == "no answer after 1 s"


def test_a_process_serves_until_it_is_lost(found: dict[str, dict[str, Any]]) -> None:
    """What came after a hang has run in another process, and one process was enough for that."""
    assert found["works"]["process"] != found["prints"]["process"] == found["works again"]["process"]


def test_variables_that_change_what_is_measured_are_left_out(found: dict[str, dict[str, Any]]) -> None:
    """torch's memory limits, Metal's debugging and our switches do not count; the rest of the environment does."""
    seen = set(found["works"]["variables"])
    assert not {name for name in seen if name.startswith(("PYTORCH_", "MTL_"))} and "PATCHER_WITHOUT" not in seen
    assert "PATH" in seen


def test_a_part_may_want_a_process_for_each_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """With variables of its own, which it makes of what the device has answered."""
    monkeypatch.delenv("OURS", raising=False)
    part = Part(
        *("fresh", "tests.calibration.misbehaving", "", 1, 60),
        fresh=True,
        variables=lambda case, device: {"OURS": device["x"]} if case == "prints" else {},
    )
    with Cases(part, None, {"x": "1"}) as cases:
        results = {name: cases.run(name) for name in ("works", "prints", "works again")}
    assert len({result["process"] for result in results.values()}) == 3
    assert [name for name, result in results.items() if "OURS" in result["variables"]] == ["prints"]


def test_a_part_that_cannot_start_says_why() -> None:
    """The process's own words, for no case can be named."""
    with pytest.raises(NoAnswer, match="ModuleNotFoundError"):
        Cases(Part("nothing", "tests.calibration.nothing", "", 1, 60), None, {})


def test_nothing_is_left_open() -> None:
    """Neither processes nor pipes."""
    folder = f"/proc/{os.getpid()}/fd" if os.path.isdir("/proc") else "/dev/fd"
    before = len(os.listdir(folder))
    run_all(PART, {})
    assert len(os.listdir(folder)) == before
