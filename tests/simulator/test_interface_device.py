"""torch.mps, torch.accelerator, events, streams, the profiler: arguments, answers and errors of a Mac's build.

What they are compared with: torch 2.13's Python files, its header ATen/mps/MPSGuardImpl.h, and for texts
aten/src/ATen/mps/MPSEvent.mm and MPSProfiler.mm.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest
import torch

from patcher.simulator import Device


@pytest.fixture
def tracing() -> Iterator[None]:
    """Ends what a test may have left on."""
    yield
    torch.mps.profiler.stop()


def timed() -> torch.mps.Event:
    return torch.mps.Event(enable_timing=True)


def test_an_event_knows_whether_it_was_recorded() -> None:
    """`query` is False before `record`; waiting for an event that was never recorded does not wait."""
    event = torch.mps.Event()
    assert not event.query()
    event.wait()
    event.synchronize()
    event.record()
    assert event.query()


def test_elapsed_time_refuses_what_has_no_time() -> None:
    """Events without timing, not recorded, or the wrong way round; a Mac hangs for some and is wrong for none."""
    first, second, unrecorded, plain = timed(), timed(), timed(), torch.mps.Event()
    for event in (first, second, plain):
        event.record()
    assert 0 < first.elapsed_time(second) < 60_000
    for start, end in ((plain, second), (first, plain)):
        with pytest.raises(RuntimeError, match="Events were not created with argument 'enable_timing=True'"):
            start.elapsed_time(end)
    for start, end in ((second, first), (first, first)):
        with pytest.raises(RuntimeError, match=r"End event \d+ was not recorded after start event \d+"):
            start.elapsed_time(end)
    with pytest.raises(RuntimeError, match="Both events must be recorded"):
        first.elapsed_time(unrecorded)
    second.record()
    first.record()
    with pytest.raises(RuntimeError, match="was not recorded after"):
        first.elapsed_time(second)


def test_generic_events_are_the_same_events() -> None:
    """`torch.Event` on mps: lazily made, timed on request, recorded on a stream, waited for by one."""
    plain, first, second = torch.Event("mps"), torch.Event("mps", enable_timing=True), torch.Event(enable_timing=True)
    assert second.device == torch.device("mps", 0) or second.device.type == "mps"
    assert first.query() and plain.query()  # torch answers for an event that does not exist yet
    stream = torch.accelerator.current_stream()
    first.record(stream)
    second.record()
    stream.wait_event(second)
    assert first.elapsed_time(second) > 0 and first.event_id != second.event_id
    with pytest.raises(ValueError, match="enable_timing=True"):
        plain.elapsed_time(second)
    recorded = stream.record_event()
    recorded.synchronize()
    assert recorded.query()


def test_there_is_one_stream() -> None:
    """Every stream is the default stream, which can be set, entered and waited for."""
    default = torch.accelerator.current_stream()
    other = torch.Stream("mps", priority=-1)
    assert other == default and hash(other) == hash(default) and other.stream_id == default.stream_id
    with other as entered:
        assert torch.accelerator.current_stream() == entered == default
    torch.accelerator.set_stream(other)
    default.wait_stream(other)
    default.synchronize()
    assert default.query()


@pytest.mark.usefixtures("tracing")
def test_the_profiler_checks_its_arguments() -> None:
    """Modes with spaces and capitals are normalised by torch; a second start and an unknown part are refused."""
    profiler = torch.mps.profiler
    for mode in ("interval", "event", "interval,event", " Event , INTERVAL "):
        profiler.start(mode, wait_until_completed=True)
        with pytest.raises(RuntimeError, match="Tracing Signposts is already enabled"):
            profiler.start(mode)
        profiler.stop()
    profiler.start("")
    profiler.start("")
    for mode in ("intervals", "event;interval"):
        with pytest.raises(RuntimeError, match=f"Invalid Signpost trace mode: {mode}"):
            profiler.start(mode)
    assert not profiler.is_metal_capture_enabled() and not profiler.is_capturing_metal()
    with pytest.raises(RuntimeError), profiler.metal_capture("trace"):
        raise AssertionError("nothing can be captured")


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: torch.mps.set_per_process_memory_fraction(1), TypeError, "must be `float`"),
        (lambda: torch.mps.set_per_process_memory_fraction(2.5), ValueError, "Allowed range: 0~2"),
        (lambda: torch.mps.set_per_process_memory_fraction(-0.5), ValueError, "Allowed range: 0~2"),
        (lambda: torch.mps.load_metallib(b"MTLB"), RuntimeError, "cannot run a .metallib"),
        (lambda: torch.mps.load_metallib("kernels.metallib"), RuntimeError, "torch.mps.compile_shader"),
        (lambda: torch.mps.load_metallib(3), TypeError, "expected bytes or path"),
        (lambda: torch.mps.compile_shader("kernel void f("), SyntaxError, "error"),
        (lambda: torch.mps.set_rng_state(torch.zeros(3, dtype=torch.uint8)), RuntimeError, "size"),
        (lambda: torch.mps.set_rng_state(torch.zeros(44)), TypeError, "RNG state must be a torch.ByteTensor"),
        (lambda: torch.accelerator.set_device_index(1), RuntimeError, "one mps device"),
        (lambda: torch.accelerator.synchronize("cpu"), ValueError, "cpu doesn't match the current accelerator mps"),
        (lambda: torch.accelerator.Graph(), RuntimeError, "not supported on device type: mps"),
        (lambda: torch.Generator("mps").graphsafe_get_state(), NotImplementedError, "graphsafe_get_state"),
    ],
    ids=range(13),
)
def test_wrong_arguments_are_refused(call: Callable[[], object], error: type[Exception], text: str) -> None:
    """The type and the words that a script may look for."""
    with pytest.raises(error, match=text):
        call()


def test_seeds() -> None:
    """`seed` draws a new one, `initial_seed` and `manual_seed` agree, negative and large seeds work as on the CPU."""
    generator = torch.Generator("mps")
    assert generator.initial_seed() == torch.Generator().initial_seed() and generator.device == torch.device("mps:0")
    assert generator.seed() == generator.initial_seed() != 3
    for seed in (3, -1, 2**63):
        assert generator.manual_seed(seed).initial_seed() == torch.Generator().manual_seed(seed).initial_seed()
    generator.manual_seed(3)
    assert generator.get_offset() == 0
    first = torch.rand(3, device="mps", generator=generator)
    generator.set_offset(8)
    assert generator.get_offset() == 8 and generator.initial_seed() == 3
    assert not torch.equal(torch.rand(3, device="mps", generator=generator), first)
    generator.set_offset(0)
    assert torch.equal(torch.rand(3, device="mps", generator=generator), first)
    before = torch.mps.get_rng_state()
    torch.mps.seed()
    assert not torch.equal(before, torch.mps.get_rng_state())
    torch.mps.set_rng_state(before, "mps:0")
    assert torch.equal(before, torch.mps.get_rng_state("mps"))


def test_peak_statistics_of_the_accelerator(device: Device) -> None:
    """Current, peak and accumulated figures, with their resets and every way to name the device."""
    gc.collect()
    torch.accelerator.empty_cache()
    torch.accelerator.reset_peak_memory_stats()
    torch.accelerator.reset_accumulated_memory_stats()
    start = torch.accelerator.memory_allocated()
    assert torch.accelerator.max_memory_allocated("mps") == start == device.memory().allocated
    more = torch.empty(32 << 20, device="mps", dtype=torch.uint8)
    assert torch.accelerator.memory_allocated(0) >= start + more.nbytes
    del more
    assert torch.accelerator.memory_allocated(torch.device("mps", 0)) == start
    highest = torch.accelerator.max_memory_allocated()
    assert highest >= start + (32 << 20)
    stats = torch.accelerator.memory_stats()
    assert stats["allocated_bytes.all.current"] == start
    assert stats["allocated_bytes.all.peak"] == highest
    assert stats["allocated_bytes.all.freed"] == highest - start
    torch.accelerator.reset_peak_memory_stats()
    torch.accelerator.reset_accumulated_memory_stats()
    torch.accelerator.empty_cache()
    torch.accelerator.empty_host_cache()
    assert torch.accelerator.max_memory_allocated() == start
    assert torch.accelerator.memory_stats()["allocated_bytes.all.freed"] == 0


def test_the_accelerator_is_mps() -> None:
    """Device index, capability and context managers."""
    expected = {
        *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64),
        *(torch.float16, torch.bfloat16, torch.float32, torch.complex32, torch.complex64, torch.bool),
    }
    assert torch.accelerator.get_device_capability()["supported_dtypes"] == expected
    assert torch.accelerator.current_accelerator(check_available=True) == torch.device("mps")
    with torch.accelerator.device_index(0):
        assert torch.accelerator.current_device_index() == 0
    with torch.accelerator.device_index(None):
        torch.accelerator.synchronize()
        torch.accelerator.synchronize(0)
        torch.accelerator.synchronize("mps")
    assert torch.get_device_module("mps") is torch.mps and torch.mps.device_count() == 1
    assert not torch.accelerator.is_available() or torch.backends.mps.is_built()
