"""What ``torch.mps`` lacks beside ``torch.xpu``: one device, one stream, and memory figures in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

from patcher import environment
from patcher.engine.ledger import LEDGER, current_machine, original
from patcher.macs.fit import Limit

DeviceLike = Any

_initialized = True
"""Asked by torch.utils.checkpoint before it saves the random state of a device, so that dropout is recomputed with
the mask of the forward; without it mps recomputes with another one (pytorch issue 194478)."""


@dataclass(frozen=True)
class DeviceProperties:
    """What upstream reads of a device: its name, memory in bytes, GPU cores; no compute capability."""

    name: str
    total_memory: int
    multi_processor_count: int
    major: int = 0
    minor: int = 0

    @property
    def gcnArchName(self) -> str:
        """The name again: Inductor puts it into the key of its cache, for CPU graphs too, where there is no CUDA."""
        return self.name


def get_device_properties(device: DeviceLike = None) -> DeviceProperties:
    """Name, memory and GPU cores of the Mac. ``total_memory`` is what Metal recommends as the most to use."""
    here = current_machine()
    return DeviceProperties(here.chip, torch.mps.recommended_max_memory(), here.gpu_cores)


def get_device_name(device: DeviceLike = None) -> str:
    """The chip, e.g. ``"Apple M3 Max"``."""
    return current_machine().chip


def get_device_capability(device: DeviceLike = None) -> tuple[int, int]:
    """(0, 0): an Apple GPU has no CUDA compute capability, so every minimum that a script asks for is missed."""
    return (0, 0)


def current_device() -> int:
    """0: a Mac has one GPU."""
    return 0


def set_device(device: DeviceLike) -> None:
    """Accepts device 0 and refuses others, as a Mac has one GPU."""
    index = device if isinstance(device, int) else torch.device(device).index
    if index not in (None, 0, -1):
        raise ValueError(f"mps has one device, number 0; asked for {device}")


class device:
    """A context manager that selects the one device, as ``torch.cuda.device`` does."""

    def __init__(self, device: DeviceLike) -> None:
        set_device(device)
        self.idx = 0

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Stream:
    """The one command queue of mps. Work is done in order, so waiting for a stream is always satisfied."""

    def __init__(self, device: DeviceLike = None, priority: int = 0, **_: Any) -> None:
        self.device = torch.device("mps", 0)
        self.priority = priority
        self.stream_id = 0
        self.cuda_stream = 0
        self.npu_stream = 0
        self.sycl_queue = 0

    def synchronize(self) -> None:
        """Waits for everything that was submitted."""
        torch.mps.synchronize()

    def query(self) -> bool:
        """Waits, then answers True: mps cannot be asked without waiting."""
        torch.mps.synchronize()
        return True

    def wait_stream(self, stream: Any) -> None:
        """Nothing to do: there is one queue."""

    def wait_event(self, event: Any) -> None:
        """Nothing to do: there is one queue."""

    def record_event(self, event: Any = None) -> Any:
        """Records an event on the queue and returns it."""
        event = event or torch.mps.Event()
        event.record()
        return event

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def current_stream(device: DeviceLike = None) -> Stream:
    """The one stream."""
    return Stream()


def default_stream(device: DeviceLike = None) -> Stream:
    """The one stream."""
    return Stream()


class stream:
    """A context manager that selects a stream: the one that there is. ``with`` gives None, as torch.cuda's does."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def is_initialized() -> bool:
    """Whether the device can be used."""
    return torch.backends.mps.is_available()


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """bfloat16 works on every Apple chip from macOS 14 on; without emulation, on chips that compute in it (M3 on).

    M1 and M2 convert to fp32 for arithmetic: Apple's Metal feature set lists bfloat as native from GPU family 9.
    """
    here = current_machine()
    if here.macos is not None and here.macos < (14, 0):
        return False
    return including_emulation or (here.generation or 0) >= 3


def memory_allocated(device: DeviceLike = None) -> int:
    """Bytes that live tensors occupy."""
    return torch.mps.current_allocated_memory()


def memory_reserved(device: DeviceLike = None) -> int:
    """Bytes that Metal has given to the process, caches included."""
    return torch.mps.driver_allocated_memory()


def max_memory_allocated(device: DeviceLike = None) -> int:
    """The peak in bytes since the last reset, where torch keeps one for mps; else what is allocated now."""
    return _peak("allocated_bytes.all.peak", memory_allocated())


def max_memory_reserved(device: DeviceLike = None) -> int:
    """As `max_memory_allocated`, of the reserved bytes."""
    return _peak("reserved_bytes.all.peak", memory_reserved())


def reset_peak_memory_stats(device: DeviceLike = None) -> None:
    """Starts the peaks again from what is allocated now, where torch keeps them for mps."""
    if _keeps_statistics():
        torch.accelerator.reset_peak_memory_stats()


def _peak(name: str, now: int) -> int:
    return max(int(torch.accelerator.memory_stats().get(name, 0)), now) if _keeps_statistics() else now


def _keeps_statistics() -> bool:
    """Whether torch's allocator for mps keeps statistics; torch says so only by raising."""
    try:
        return bool(torch._C._accelerator_isAllocatorInitialized())
    except RuntimeError:
        return False


class MemoryFraction:
    """The hard limit that the script has set itself while the patches are in place; torch tells nobody what it is."""

    asked: float | None = None


def set_per_process_memory_fraction(fraction: float) -> None:
    """The hard limit as a multiple of what Metal recommends, and a note of it for `patcher.macs.fit`."""
    original("torch.mps:set_per_process_memory_fraction")(fraction)
    LEDGER.memory(MemoryFraction).asked = float(fraction)


def limit() -> Limit:
    """The hard limit of torch's allocator, and what counts against it already: live tensors, and what others than the
    allocator have taken from Metal (safetensors reads into buffers of its own)."""
    ratio = LEDGER.memory(MemoryFraction).asked
    if ratio is None:
        asked = environment.ratio(environment.HIGH)
        ratio = environment.DEFAULT_HIGH if asked is None else asked
    others = 0
    if _keeps_statistics():
        reserved = int(torch.accelerator.memory_stats().get("reserved_bytes.all.current", 0))
        others = max(torch.mps.driver_allocated_memory() - reserved, 0) if reserved else 0
    return Limit(ratio, torch.mps.recommended_max_memory(), torch.mps.current_allocated_memory() + others)


def mem_get_info(device: DeviceLike = None) -> tuple[int, int]:
    """(free, total) bytes: what Metal recommends as the most to use, and what of that is not yet taken."""
    total = torch.mps.recommended_max_memory()
    return max(total - torch.mps.driver_allocated_memory(), 0), total
