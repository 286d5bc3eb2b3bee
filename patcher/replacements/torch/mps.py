"""What a device's module is asked, answered for mps: one device, one queue, memory in bytes, one generator.

The table of who asks what is `patcher.changes.torch.mps`. Every answer has the parameters that ``torch.cuda`` gives it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

from patcher.engine.ledger import current_machine
from patcher.replacements.torch.cuda_device import say_once

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
    _check(device)


def _check(device: DeviceLike) -> None:
    index = device if isinstance(device, int) else torch.device(device).index
    if index not in (None, 0, -1):
        raise ValueError(f"mps has one device, number 0; asked for {device}")


class device:
    """A context manager that selects the one device, as ``torch.cuda.device`` does."""

    def __init__(self, device: DeviceLike) -> None:
        if device is not None:  # the current one
            _check(device)  # Dynamo does not read set_device
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

    @staticmethod
    def priority_range() -> tuple[int, int]:
        """(0, 0): there is one queue, and so one priority."""
        return (0, 0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream)

    def __hash__(self) -> int:
        return hash((self.device, self.stream_id))

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
        event = event or Event()
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


def set_stream(stream: Any) -> None:
    """Nothing to do: there is one queue."""


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
    if keeps_statistics():
        torch.accelerator.reset_peak_memory_stats()


def _peak(name: str, now: int) -> int:
    return max(int(torch.accelerator.memory_stats().get(name, 0)), now) if keeps_statistics() else now


def keeps_statistics() -> bool:
    """Whether torch's allocator for mps keeps statistics; torch says so only by raising."""
    try:
        return bool(torch._C._accelerator_isAllocatorInitialized())
    except RuntimeError:
        return False


def mem_get_info(device: DeviceLike = None) -> tuple[int, int]:
    """(free, total) bytes: what Metal recommends as the most to use, and what of that is not yet taken."""
    total = torch.mps.recommended_max_memory()
    return max(total - torch.mps.driver_allocated_memory(), 0), total


class Event(torch.mps.Event):
    """``torch.cuda.Event`` on the queue of mps; ``elapsed_time`` in milliseconds."""

    def __init__(
        self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False, external: bool = False
    ) -> None:
        super().__init__(enable_timing)

    def record(self, stream: Any = None) -> None:
        """Marks the queue's present end."""
        super().record()

    def wait(self, stream: Any = None) -> None:
        """Lets later work wait for the mark: there is one queue, so it does."""
        super().wait()


def empty_cache() -> None:
    """Gives cached memory back to Metal."""
    torch.mps.empty_cache()


def synchronize(device: Any = None) -> None:
    """Waits for all work on mps."""
    torch.mps.synchronize()


def get_rng_state(device: Any = "cuda") -> torch.Tensor:
    """The state of the mps generator."""
    return torch.mps.get_rng_state()


def set_rng_state(new_state: torch.Tensor, device: Any = "cuda") -> None:
    """Sets the state of the mps generator."""
    torch.mps.set_rng_state(new_state)


def get_rng_state_all() -> list[torch.Tensor]:
    """The state of the one mps generator, in a list."""
    return [torch.mps.get_rng_state()]


def set_rng_state_all(new_states: Iterable[torch.Tensor]) -> None:
    """Sets the state of the one mps generator, from a list of one."""
    for state in new_states:
        torch.mps.set_rng_state(state)


def seed() -> None:
    """Seeds the mps generator from the system's randomness."""
    torch.mps.seed()


def seed_all() -> None:
    """Seeds the mps generator from the system's randomness."""
    torch.mps.seed()


def initial_seed() -> int:
    """The seed of the mps generator."""
    return int(torch.mps._get_default_mps_generator().initial_seed())


def ipc_collect() -> None:
    """Nothing to do: mps shares no memory between processes."""


def reset_max_memory_allocated(device: Any = None) -> None:
    """Starts the peaks again, as `reset_peak_memory_stats`."""
    reset_peak_memory_stats()


def reset_max_memory_cached(device: Any = None) -> None:
    """Starts the peaks again, as `reset_peak_memory_stats`."""
    reset_peak_memory_stats()


def reset_accumulated_memory_stats(device: Any = None) -> None:
    """Nothing to do: mps accumulates no counts."""


def set_per_process_memory_fraction(fraction: float, device: Any = None) -> None:
    """The same limit on mps, whose fraction is of what Metal recommends as the most to use."""
    torch.mps.set_per_process_memory_fraction(fraction)


def manual_seed(seed: int) -> None:
    """Seeds the mps generator."""
    torch.mps.manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """Seeds the mps generator: it is all that there is."""
    torch.mps.manual_seed(seed)


def _lazy_init() -> None:
    """Lets a request for "cuda" through to `patcher.replacements.torch.cuda_device`, where it lands on mps."""
    say_once()


def _cuda_getCurrentRawStream(device: int) -> int:
    """0, the address of no stream: nothing native is launched on mps."""
    return 0


def get_device_type() -> str:
    """``"mps"``."""
    return "mps"


def get_device_count() -> int:
    """1: a Mac has one GPU."""
    return 1


def get_device_stats() -> tuple[str, str, float]:
    """(name, system, memory in GiB) for Unsloth's banner."""
    here = current_machine()
    system = f"macOS {here.macos[0]}.{here.macos[1]}" if here.macos else here.system
    kind = "simulated Mac" if here.simulated else "Metal"
    memory = round(get_device_properties().total_memory / 1024**3, 3)
    return f"{here.chip}. ", f"{kind}, {system}.", memory


def device_synchronize() -> None:
    """`synchronize`, as unsloth_zoo names it."""
    synchronize()


def device_empty_cache() -> None:
    """`empty_cache`, as unsloth_zoo names it."""
    empty_cache()


def device_is_bf16_supported() -> bool:
    """`is_bf16_supported`, as unsloth_zoo names it."""
    return is_bf16_supported()
