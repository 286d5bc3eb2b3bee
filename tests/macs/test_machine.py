"""Which machine this is."""

from __future__ import annotations

import dataclasses

import pytest

from patcher.errors import InvalidSwitch
from patcher.macs import machine
from tests.machines import M3_MAX
from tests.process import run_python


def test_detection_reads_the_machine_and_the_simulated_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulated Mac has mps on any machine; an Intel Mac, or one with an old macOS, has none."""
    simulated = machine.detect("M2 Pro 32GB")
    assert (simulated.chip, simulated.memory_bytes, simulated.mps, simulated.simulated) == (
        "Apple M2 Pro",
        32 * 2**30,
        True,
        True,
    )
    monkeypatch.setattr(machine.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(machine, "_sysctl", lambda name: "Apple M1")
    for processor, release, has_mps in (("arm64", "14.0", True), ("arm64", "13.6.1", False), ("x86_64", "15.1", False)):
        monkeypatch.setattr(machine.platform, "machine", lambda processor=processor: processor)
        monkeypatch.setattr(machine.platform, "mac_ver", lambda release=release: (release, ("", "", ""), ""))
        found = machine.detect()
        assert (found.mps, found.simulated, found.generation) == (has_mps, False, 1)


@pytest.mark.parametrize(
    ("told", "darwin", "macos"),
    [
        ("15.5", "24.5.0", (15, 5)),
        ("16.0", "25.1.0", (26, 1)),
        ("16.0", "26.0.0", (27, 0)),
        ("26.4.1", "25.4.0", (26, 4)),
        ("27.0", "26.0.0", (27, 0)),
    ],
)
def test_a_python_that_is_told_16_is_on_what_its_kernel_says(
    monkeypatch: pytest.MonkeyPatch, told: str, darwin: str, macos: tuple[int, int]
) -> None:
    """One that was built for an older macOS (cpython#135675)."""
    monkeypatch.setattr(machine.platform, "mac_ver", lambda: (told, ("", "", ""), ""))
    monkeypatch.setattr(machine.platform, "release", lambda: darwin)
    assert machine.detect().macos == macos


@pytest.mark.parametrize(
    ("chip", "generation"),
    [("Apple M1", 1), ("Apple M2 Ultra", 2), ("Apple M10 Max", 10), ("Apple A18 Pro", None), ("Intel Core i7", None)],
)
def test_the_generation_is_the_number_behind_the_m(chip: str, generation: int | None) -> None:
    """Also with two digits; None for what is no M chip."""
    assert dataclasses.replace(M3_MAX, chip=chip).generation == generation


def test_a_machine_is_named_as_a_user_would() -> None:
    """Chip, memory, system; simulated ones say so."""
    assert str(M3_MAX) == "Apple M3 Max, 36 GB, macOS 15.5"
    assert str(dataclasses.replace(M3_MAX, simulated=True)).endswith("macOS 15.5 (simulated, torch 2.13.0)")
    linux = dataclasses.replace(M3_MAX, system="Linux", chip="x86_64", macos=None)
    assert str(linux) == "x86_64, 36 GB, Linux"


def test_cuda_is_present_with_a_driver_and_a_torch_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU build of torch has no CUDA whatever the driver; neither has a Mac."""
    monkeypatch.setattr(machine.platform, "system", lambda: "Linux")
    for driver in (True, False):
        monkeypatch.setattr(machine.Path, "exists", lambda self, driver=driver: driver)
        for torch, expected in (("2.13.0", driver), ("2.13.0+cpu", False), (None, False)):
            monkeypatch.setattr(machine, "_torch_version", lambda torch=torch: torch)
            assert machine.detect().cuda == expected
    monkeypatch.setattr(machine.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(machine, "_torch_version", lambda: "2.13.0")
    monkeypatch.setattr(machine, "_sysctl", lambda name: "Apple M1")
    monkeypatch.setattr(machine.Path, "exists", lambda self: True)
    assert not machine.detect().cuda


def test_an_unknown_mac_is_refused() -> None:
    with pytest.raises(InvalidSwitch, match="M0"):
        machine.detect("M0 8GB")


def test_looking_imports_no_torch() -> None:
    """The real machine and a simulated one, in a fresh process."""
    run_python(
        "-c", "import sys; from patcher.macs.machine import detect as d; d(), d('1'); assert 'torch' not in sys.modules"
    )
