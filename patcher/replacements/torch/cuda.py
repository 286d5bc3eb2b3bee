"""``torch.cuda`` queries answered for mps, so that the script's own figures are about the device that it trains on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from patcher.replacements.torch import mps
from patcher.replacements.torch.cuda_device import say_once

current_device = mps.current_device
current_stream = mps.current_stream
default_stream = mps.default_stream
get_device_capability = mps.get_device_capability
get_device_name = mps.get_device_name
get_device_properties = mps.get_device_properties
is_bf16_supported = mps.is_bf16_supported
max_memory_allocated = mps.max_memory_allocated
max_memory_reserved = mps.max_memory_reserved
mem_get_info = mps.mem_get_info
memory_allocated = mps.memory_allocated
memory_reserved = mps.memory_reserved
reset_peak_memory_stats = mps.reset_peak_memory_stats
set_device = mps.set_device


class device(mps.device):
    """``torch.cuda.device``: selects the one device there is."""


class Stream(mps.Stream):
    """``torch.cuda.Stream``: the one queue of mps."""


class stream(mps.stream):
    """``torch.cuda.stream``: selects the one queue there is."""


class Event(torch.mps.Event):
    """``torch.cuda.Event`` on the queue of mps; ``elapsed_time`` in milliseconds."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
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


def memory_stats(device: Any = None) -> dict[str, int]:
    """Current and peak bytes under the names that CUDA's allocator uses; mps counts nothing else."""
    figures = {
        "allocated": (memory_allocated(), max_memory_allocated()),
        "reserved": (memory_reserved(), max_memory_reserved()),
    }
    return {
        f"{kind}_bytes.all.{when}": value
        for kind, pair in figures.items()
        for when, value in zip(("current", "peak"), pair, strict=True)
    }


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """Current and peak MiB as text, one line each."""
    lines = (f"{name:28} {value / 2**20:12.1f} MiB" for name, value in memory_stats().items())
    return "\n".join([get_device_name(), *lines])


def reset_max_memory_allocated(device: Any = None) -> None:
    """Starts the peaks again, as `reset_peak_memory_stats`."""
    mps.reset_peak_memory_stats()


def reset_max_memory_cached(device: Any = None) -> None:
    """Starts the peaks again, as `reset_peak_memory_stats`."""
    mps.reset_peak_memory_stats()


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
