"""The workflow for Macs: it can be read, runs on Apple silicon, and its commands exist."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import yaml

import verify_apple
from tests.process import ROOT

FILE = ROOT / ".github" / "workflows" / "macos.yml"


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(FILE.read_text())
    return found


def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_it_runs_weekly_and_on_demand(workflow: dict[Any, Any]) -> None:
    """Not with every push: a Mac's minutes are dear."""
    triggers = workflow[True]  # YAML reads a bare "on" as yes
    assert triggers.keys() == {"workflow_dispatch", "schedule"}
    (schedule,) = triggers["schedule"]
    minute, hour, day, month, weekday = schedule["cron"].split()
    assert 0 <= int(minute) < 60 and 0 <= int(hour) < 24 and (day, month) == ("*", "*") and 0 <= int(weekday) < 7


def test_it_runs_on_apple_silicon(workflow: dict[Any, Any]) -> None:
    """Whose image is arm64 from macOS 14 on; with a limit of time, and no more rights than to read."""
    for job in workflow["jobs"].values():
        number = re.fullmatch(r"macos-(\d+)", job["runs-on"])
        assert number is not None and int(number[1]) >= 14
        assert 0 < job["timeout-minutes"] <= 360
    assert workflow["permissions"] == {"contents": "read"}


def test_its_python_is_one_that_the_pins_are_for(workflow: dict[Any, Any]) -> None:
    """3.11 or later."""
    versions = [step["with"]["python-version"] for step in steps(workflow) if "setup-python" in step.get("uses", "")]
    assert len(versions) == len(workflow["jobs"])
    assert all(tuple(map(int, version.split("."))) >= (3, 11) for version in versions)


def test_its_commands_exist(workflow: dict[Any, Any]) -> None:
    """Targets of the Makefile, with variables that it reads, and verify_apple.py with its options."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set()
    for command in [shlex.split(step["run"]) for step in steps(workflow) if "run" in step]:
        if command[0] == "make":
            assert re.search(rf"^{command[1]}:", makefile, flags=re.MULTILINE), command
            targets.add(command[1])
            for argument in command[2:]:
                assert f"$({argument.partition('=')[0]})" in makefile, command
        else:
            assert command[:2] == [".venv/bin/python", "verify_apple.py"]
            verify_apple._parser().parse_args(command[2:])
    assert targets == {"venv", "test", "calibrate"}


def test_the_calibration_is_kept(workflow: dict[Any, Any]) -> None:
    """The file that is written is the one that is uploaded, also where a part failed."""
    calibrate = workflow["jobs"]["calibrate"]["steps"]
    (written,) = [re.search(r"FILE=(\S+)", step["run"]) for step in calibrate if "calibrate" in step.get("run", "")]
    (kept,) = [step for step in calibrate if "upload-artifact" in step.get("uses", "")]
    assert written is not None and kept["with"]["path"] == written[1]
    assert kept["if"] == "always()"
    assert calibrate.index(kept) == len(calibrate) - 1


def test_a_part_of_the_makefile_is_for_macs() -> None:
    """Nothing is installed there that has no wheel for macOS."""
    on_a_mac = (ROOT / "Makefile").read_text().partition(",Darwin)\n")[2].partition("else\n")[0]
    assert "PINS = requirements/macos.txt\n" in on_a_mac and "\nBESIDE =\n" in on_a_mac
    pins = (ROOT / "requirements" / "macos.txt").read_text()
    assert not re.search(r"^(triton|ziglang|nvidia)", pins, flags=re.MULTILINE)
