"""``python -m patcher report``: what is patched here, for people and for programs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from patcher.engine.model import State
from tests.process import ROOT, clean_environment, run_module

CHANGE = {
    "target",
    "kind",
    "state",
    "detail",
    "distribution",
    "installed",
    "reviewed",
    "required",
    "needed_for",
    "why",
    "upstream",
    "everywhere",
    "until",
}
REPORT = {"machine", "inactive", "counts", "changes", "rewrites", "notes"}


def call(*arguments: str, mac: str | None = "M2 16GB", cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """``python -m patcher report ARGUMENTS`` on a simulated Mac, or on this machine if ``mac`` is None."""
    return run_module("patcher", "report", *arguments, cwd=cwd, check=False, timeout=300, **switch(mac))


def switch(mac: str | None) -> dict[str, str]:
    return {} if mac is None else {"UNSLOTH_SIMULATE_MAC": mac}


def test_json_has_the_promised_keys_and_imports_nothing_heavy() -> None:
    """Every key of the report and of each change is there; without imports the changes to libraries are pending."""
    found = call("--json")
    assert found.returncode == 0, found.stderr
    data = json.loads(found.stdout)
    assert set(data) == REPORT
    assert data["machine"] == "Apple M2, 16 GB, macOS 15.5 (simulated, torch 2.14.1)"
    assert all(set(change) == CHANGE for change in data["changes"])
    assert data["counts"]["applied"] >= 5
    assert {c["state"] for c in data["changes"] if c["kind"] in ("Patch", "Substitute", "Kernel")} == {"pending"}
    assert sum(data["counts"].values()) == len(data["changes"])
    assert set(data["counts"]) == {state.value for state in State}


def test_plain_lines_where_the_output_is_no_terminal() -> None:
    """A pipe gets one line per change and no control characters."""
    lines = call().stdout.splitlines()
    assert lines[0].startswith("patch_for_mac on Apple M2, 16 GB")
    assert any(line.split()[:2] == ["applied", "$PYTORCH_ENABLE_MPS_FALLBACK"] for line in lines)
    assert not any("\x1b" in line for line in lines)


def test_a_table_on_a_terminal() -> None:
    """A terminal gets a coloured table with the same states."""
    leader, follower = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "patcher", "report"],
        stdout=follower,
        env=clean_environment(UNSLOTH_SIMULATE_MAC="1", TERM="xterm", COLUMNS="150"),
    )
    os.close(follower)
    shown = b""
    while chunk := _read(leader):
        shown += chunk
    assert child.wait(60) == 0
    assert b"\x1b[32mapplied\x1b[0m" in shown
    assert b"$PYTORCH_ENABLE_MPS_FALLBACK" in shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux: EIO when the child has closed its end
        return b""


@pytest.mark.skipif(sys.platform != "linux", reason="a Mac has something to patch")
def test_a_machine_without_mps_is_told_that_nothing_is_patched() -> None:
    """Exit code 0, because nothing is wrong; the reason is given."""
    plain, data = call(mac=None), json.loads(call("--json", mac=None).stdout)
    assert plain.returncode == 0
    assert "nothing is patched: no mps device here" in plain.stdout
    assert data["inactive"].startswith("no mps device here") and data["changes"] == []


def test_imports_run_first_and_their_chatter_stays_off_stdout(tmp_path: Path) -> None:
    """``--import`` runs modules before the report; what they print does not spoil the JSON; a failing one gives 1."""
    (tmp_path / "chatty.py").write_text("print('chatter')\n")
    found = call("--json", "--import", "chatty", "--import", "missing_module", cwd=tmp_path)
    assert "machine" in json.loads(found.stdout)
    assert "chatter" in found.stderr
    assert "import missing_module failed: ModuleNotFoundError" in found.stderr
    assert found.returncode == 1


def test_an_unknown_mac_is_wrong_use() -> None:
    """Exit code 2, and the message lists what there is."""
    found = call("--simulate", "M0")
    assert found.returncode == 2
    assert "M3 Max" in found.stderr


@pytest.mark.slow
def test_states_are_real_after_an_import() -> None:
    """With ``--import torch`` the changes to torch are in place, and the exit code says that none was refused."""
    found = call("--json", "--import", "torch")
    assert found.returncode == 0, found.stderr
    states = {change["target"]: change["state"] for change in json.loads(found.stdout)["changes"]}
    assert states["torch.cuda:get_device_name"] == "applied"
    assert states["module unsloth.device_type"] == "pending"
