"""How much memory accelerate divides a model over."""

from __future__ import annotations

from typing import Any

from patcher.engine.ledger import original
from patcher.replacements.torch.memory_limit import limit
from patcher.replacements.transformers.device_map import memory_by_place, on_mps


def get_max_memory(max_memory: Any = None) -> Any:
    """As upstream; for mps what is left below torch's limit, and the budgets that a script gives to CUDA devices."""
    ask = original("accelerate.utils.modeling:get_max_memory")
    if max_memory is not None:
        return ask(memory_by_place(max_memory) if any(on_mps(place) != place for place in max_memory) else max_memory)
    found = ask()
    free = limit().free
    if "mps" in found and free is not None:
        found["mps"] = free
    return found
