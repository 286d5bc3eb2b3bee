"""What CUDA's allocator tells and offers, for the allocator of mps. All figures are bytes or counts."""

from __future__ import annotations

import os
from typing import Any, NoReturn

import torch

from patcher.engine.ledger import LEDGER
from patcher.errors import NotOnMac, compose
from patcher.replacements.torch import mps
from patcher.replacements.torch.memory_limit import MemoryFraction

_POOLS, _WHEN = ("all", "large_pool", "small_pool"), ("current", "peak", "allocated", "freed")
_KINDS = ("allocation", "allocated", "segment", "active", "inactive_split")
_BYTES = ("allocated_bytes", "reserved_bytes", "active_bytes", "inactive_split_bytes", "requested_bytes")
_OVERSIZE = ("oversize_allocations", "oversize_segments")
_EVENTS = ("num_alloc_retries", "num_ooms", "num_oom_rejections", "num_sync_all_streams")
_COUNTS = (*_EVENTS, "num_device_alloc", "num_device_free", "max_split_size")
_KEYS = (
    *(f"{kind}.{pool}.{when}" for kind in (*_KINDS, *_BYTES) for pool in _POOLS for when in _WHEN),
    *(f"{kind}.{when}" for kind in _OVERSIZE for when in _WHEN),
    *_COUNTS,
)


def memory_stats(device: Any = None) -> dict[str, int]:
    """Every key that CUDA has. Allocated, active and reserved bytes are those of mps, the rest is 0: it counts no more.

    Active bytes are the allocated ones: on one queue no freed block waits for another. The sums of all that was ever
    allocated and freed are torch's, where it keeps them for mps.
    """
    kept = torch.accelerator.memory_stats() if mps.keeps_statistics() else {}
    stats = dict.fromkeys(_KEYS, 0) | {key: int(value) for key, value in kept.items() if key in _KEYS}
    allocated = mps.memory_allocated(), mps.max_memory_allocated()
    reserved = mps.memory_reserved(), mps.max_memory_reserved()
    for kind, figures in (("allocated", allocated), ("active", allocated), ("reserved", reserved)):
        stats[f"{kind}_bytes.all.current"], stats[f"{kind}_bytes.all.peak"] = figures
    return dict(sorted(stats.items()))


def memory_stats_as_nested_dict(device: Any = None) -> dict[str, Any]:
    """`memory_stats`, a dictionary for each part of a key."""
    nested: dict[str, Any] = {}
    for key, value in memory_stats().items():
        *parts, last = key.split(".")
        inner = nested
        for part in parts:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return nested


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """Current and peak MiB as text, one line each."""
    stats = memory_stats()
    names = [f"{kind}_bytes.all.{when}" for kind in ("allocated", "reserved") for when in ("current", "peak")]
    return "\n".join([mps.get_device_name(), *(f"{name:28} {stats[name] / 2**20:12.1f} MiB" for name in names)])


def memory_snapshot(mempool_id: Any = None, include_traces: bool = True) -> list[dict[str, Any]]:
    """No segments: mps tells of none."""
    return []


def list_gpu_processes(device: Any = None) -> str:
    """This process and what it has taken, in CUDA's form; macOS tells of no other."""
    return f"GPU:0\nprocess {os.getpid():>10d} uses {mps.memory_reserved() / 2**20:>12.3f} MB GPU memory"


def get_allocator_backend() -> str:
    """``"native"``: torch's own caching allocator."""
    return "native"


def get_per_process_memory_fraction(device: Any = None) -> float:
    """What the script has set, of what Metal recommends as the most to use; 1.0 before, as CUDA says."""
    asked = LEDGER.memory(MemoryFraction).asked
    return 1.0 if asked is None else asked


def reset_peak_host_memory_stats() -> None:
    """Nothing to do: mps pins no memory."""


def reset_accumulated_host_memory_stats() -> None:
    """Nothing to do: mps pins no memory."""


def caching_allocator_alloc(size: int, device: Any = None, stream: Any = None) -> NoReturn:
    """Raises NotOnMac."""
    raise _refusal("caching_allocator_alloc: mps gives out no addresses", 'torch.empty(size, device="cuda")')


def caching_allocator_delete(mem_ptr: int) -> NoReturn:
    """Raises NotOnMac."""
    raise _refusal("caching_allocator_delete: mps gives out no addresses", "del, of the tensor")


def __new__(obj: type, *args: Any, **kwargs: Any) -> NoReturn:  # noqa: N807 - it replaces a class's
    """Raises NotOnMac."""
    raise _refusal("MemPool: mps has one pool", "the same without the pool: torch.cuda.use_mem_pool is left out too")


def __init__(self: Any, path_to_so_file: str, alloc_fn_name: str, free_fn_name: str) -> NoReturn:  # noqa: N807
    """Raises NotOnMac."""
    raise _refusal("CUDAPluggableAllocator: mps has one allocator", "the same without it")


def _refusal(what: str, instead: str) -> NotOnMac:
    return NotOnMac(compose(f"torch.cuda.{what}", expected=instead, left="nothing was allocated"))
