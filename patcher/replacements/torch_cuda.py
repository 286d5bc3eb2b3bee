"""``torch.cuda`` queries answered for mps, so that the script's own figures are about the device that it trains on."""

from __future__ import annotations

from typing import Any

import torch

from patcher.replacements import torch_mps
from patcher.replacements.torch_cuda_device import say_once

current_device = torch_mps.current_device
current_stream = torch_mps.current_stream
default_stream = torch_mps.default_stream
get_device_capability = torch_mps.get_device_capability
get_device_name = torch_mps.get_device_name
get_device_properties = torch_mps.get_device_properties
is_bf16_supported = torch_mps.is_bf16_supported
max_memory_allocated = torch_mps.max_memory_allocated
max_memory_reserved = torch_mps.max_memory_reserved
mem_get_info = torch_mps.mem_get_info
memory_allocated = torch_mps.memory_allocated
memory_reserved = torch_mps.memory_reserved
reset_peak_memory_stats = torch_mps.reset_peak_memory_stats
set_device = torch_mps.set_device


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


def manual_seed(seed: int) -> None:
    """Seeds the mps generator."""
    torch.mps.manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """Seeds the mps generator: it is all that there is."""
    torch.mps.manual_seed(seed)


def _lazy_init() -> None:
    """Lets a request for "cuda" through to `patcher.replacements.torch_cuda_device`, where it lands on mps."""
    say_once()


def _cuda_getCurrentRawStream(device: int) -> int:
    """0, the address of no stream: nothing native is launched on mps."""
    return 0
