"""The simulated Mac has a torch of its own, for as long as the process lives; its rules and its allocator follow it."""

from __future__ import annotations

from pathlib import Path

import pytest

from patcher.changes.torch import linear
from patcher.errors import SimulatorUnavailable
from patcher.macs import machine
from patcher.macs.mac import DEFAULT_TORCH, TORCH, default_torch, release_of
from patcher.simulator import Device, start
from patcher.simulator.rules import tables
from patcher.simulator.wheels import records
from tests.process import ROOT, run_module, run_python
from tests.simulator import conftest

OTHERS = [release for release in TORCH if release != release_of(default_torch())]


def test_every_release_has_its_data() -> None:
    """What its wheel holds and what that does not tell; and the default is what a Mac's pinned requirements install."""
    assert tuple(TORCH) == records.releases()
    for release, version in TORCH.items():
        assert records.record(release).torch == version
        assert tables.for_torch(version).refusals
    assert f"\ntorch=={DEFAULT_TORCH}\n" in (ROOT / "requirements" / "macos.txt").read_text()


def test_another_torch_is_refused_while_the_process_runs(device: Device) -> None:
    """The Mac stays what it was. A text that names no torch means the one that runs."""
    other = next(release for release in TORCH if release != conftest.TORCH)
    mac = device.mac
    with pytest.raises(SimulatorUnavailable, match=rf"(?s)cannot change.*expected: +torch {device.torch}\n"):
        start(f"M1 8GB, torch {other}")
    assert device.mac is mac
    try:
        assert start("M1 8GB").mac.torch == machine.detect("M2").torch == device.torch == TORCH[conftest.TORCH]
    finally:
        device.become(mac)


@pytest.mark.parametrize(("torch", "needed"), [("2.13", True), ("2.14", False)])
def test_guards_follow_the_macs_torch(monkeypatch: pytest.MonkeyPatch, torch: str, needed: bool) -> None:
    """On an M3, torch 2.14's linear layers are right; the torch that computes here is 2.13 in both cases."""
    monkeypatch.setattr("patcher.simulator.device._RUNNING", [])
    mac = machine.detect(f"M3 Max 36GB, torch {torch}")
    assert mac.torch == TORCH[torch]
    assert str(mac).endswith(f"macOS 15.5 (simulated, torch {TORCH[torch]})")
    forward = next(change for change in linear.CHANGES if change.op == "aten::linear")
    assert forward.skip is not None
    assert (forward.skip(mac) is None) is needed


VERDICT = """
import torch
big = torch.empty(2**20, device="mps")
torch.linalg.svd(torch.eye(3, device="mps"))
kept, lengths = [], range(20, 400, 17)
for length in lengths:
    pair = [torch.empty(length << 20, dtype=torch.uint8, device="mps") for _ in range(2)]
    del pair
print(torch.mps.driver_allocated_memory() >> 20)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("torch", "fell_back", "gigabytes"), [("2.13", True, 11), ("2.14", False, 1)])
def test_the_verdict_is_that_of_the_macs_torch(tmp_path: Path, torch: str, fell_back: bool, gigabytes: int) -> None:
    """`simulate` names it, counts what runs on the CPU with it, and reserves as its allocator does."""
    (tmp_path / "script.py").write_text(VERDICT)
    mac = f"M3 Max 36GB, torch {torch}"
    done = run_module("patcher", "simulate", "--mac", mac, "--no-patch", "script.py", cwd=tmp_path)
    assert f"macOS 15.5, torch {TORCH[torch]}, nothing patched" in done.stderr
    assert ("aten::linalg_svd 1 x: script.py:4" in done.stderr) is fell_back
    assert int(done.stdout) == gigabytes * 1024 + 8 + 32


@pytest.mark.slow
@pytest.mark.parametrize("release", OTHERS)
def test_rules_of_the_other_releases(release: str) -> None:
    """The tests of this folder that depend on the Mac's torch, on a Mac with another one."""
    names = ("rules", "rules_dtypes", "rules_attention", "memory", "refusals", "meter")
    files = [f"test_{name}.py" for name in names]
    paths = [ROOT / "tests" / "simulator" / name for name in files]
    run_python("-m", "pytest", "-n0", "-m", "not slow", *paths, PATCHER_SIMULATE_TORCH=release)
