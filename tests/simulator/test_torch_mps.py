"""torch.mps, torch.accelerator and torch.backends.mps answer as on a Mac."""

from __future__ import annotations

import pytest
import torch

from patcher.macs.mac import parse
from patcher.simulator import Device, running, start


def test_the_device_is_found() -> None:
    """Every way to ask says that there is one mps device."""
    assert torch.backends.mps.is_available() and torch.backends.mps.is_built()
    assert torch.mps.is_available() and torch.mps.device_count() == 1
    assert torch.accelerator.is_available() and torch.accelerator.device_count() == 1
    assert torch.accelerator.current_accelerator() == torch.device("mps")
    assert torch.accelerator.current_device_index() == 0
    assert torch.get_device_module() is torch.mps
    assert not torch.cuda.is_available()
    assert torch.get_device_module("mps") is torch.mps
    torch.accelerator.set_device_index(0)
    with torch.accelerator.device_index(0):
        assert torch.ones(1, device="mps").item() == 1.0


def test_the_mac_is_named(unlimited: Device) -> None:
    """Name, cores, macOS and memory are those of the chosen Mac, also after another choice."""
    assert (torch.backends.mps.get_name(), torch.backends.mps.get_core_count()) == ("Apple M3 Max", 30)
    assert torch.backends.mps.is_macos_or_newer(15, 0) and torch.backends.mps.is_macos13_or_newer()
    assert not torch.backends.mps.is_macos_or_newer(26, 0)
    before = unlimited.mac
    assert start("M1 8GB") is unlimited is running() is start()
    assert (torch.backends.mps.get_name(), torch.backends.mps.get_core_count()) == ("Apple M1", 8)
    assert torch.mps.recommended_max_memory() == parse("M1 8GB").recommended_max_bytes
    unlimited.become(before)


def test_queues_are_always_empty() -> None:
    """Synchronising, emptying the cache and memory queries do no harm."""
    torch.mps.synchronize()
    torch.accelerator.synchronize()
    torch.mps.empty_cache()
    assert torch.mps.driver_allocated_memory() >= torch.mps.current_allocated_memory()


def test_mps_events_measure_time() -> None:
    """`torch.mps.Event` as the documentation uses it; an event that was not recorded has no time."""
    start_event, end = torch.mps.Event(enable_timing=True), torch.mps.Event(enable_timing=True)
    start_event.record()
    end.record()
    end.synchronize()
    end.wait()
    assert end.query() and 0 <= start_event.elapsed_time(end) < 60_000
    with pytest.raises(RuntimeError, match="must be recorded"):
        start_event.elapsed_time(torch.mps.Event(enable_timing=True))


def test_streams_and_generic_events() -> None:
    """`torch.Stream` and `torch.Event` through the device guard."""
    stream = torch.accelerator.current_stream()
    assert stream.device.type == "mps" and stream.query()
    other = torch.Stream(device="mps")
    other.wait_stream(stream)
    with other:
        first = torch.Event("mps", enable_timing=True)
        first.record()
    second = torch.Event("mps", enable_timing=True)
    second.record(stream)
    second.wait(other)
    second.synchronize()
    assert second.query() and first.elapsed_time(second) >= 0
    torch.accelerator.set_stream(stream)
    stream.synchronize()


def test_profiler_checks_its_mode() -> None:
    """The signpost profiler takes the modes that it takes on a Mac and does nothing."""
    with torch.mps.profiler.profile(mode="interval,event", wait_until_completed=True):
        torch.ones(2, device="mps")
    with pytest.raises(RuntimeError, match="sometimes"):
        torch.mps.profiler.start("sometimes")
    assert not torch.mps.profiler.is_capturing_metal()


def test_torch_profiler_and_dynamo_import() -> None:
    """torch's own profiler and compiler accept the device."""
    import torch._dynamo

    with torch.profiler.profile() as profile:
        torch.ones(2, device="mps") + 1
    assert any(event.key == "aten::add" for event in profile.key_averages())


def test_operators_are_counted(device: Device) -> None:
    """`operator_counts` says how often a kernel ran."""
    x = torch.ones(2, device="mps")
    device.reset_operator_counts()
    x.add_(1)
    x.add_(1)
    assert device.operator_counts() == {"aten::add_.Tensor": 2}
