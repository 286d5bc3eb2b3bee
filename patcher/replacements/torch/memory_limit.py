"""The hard limit of torch's allocator for mps, and what counts against it."""

from __future__ import annotations

import torch

from patcher import environment
from patcher.engine.ledger import LEDGER, original
from patcher.macs.fit import Limit
from patcher.replacements.torch.mps import keeps_statistics


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
    if keeps_statistics():
        reserved = int(torch.accelerator.memory_stats().get("reserved_bytes.all.current", 0))
        others = max(torch.mps.driver_allocated_memory() - reserved, 0) if reserved else 0
    return Limit(ratio, torch.mps.recommended_max_memory(), torch.mps.current_allocated_memory() + others)
