"""``torch.mps`` has what Unsloth calls on ``torch.xpu`` and ``torch.npu`` (and torch.accelerator users expect)."""

from __future__ import annotations

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import Patch

_NAMES = (
    "current_device",
    "current_stream",
    "default_stream",
    "device",
    "get_device_capability",
    "get_device_name",
    "get_device_properties",
    "is_bf16_supported",
    "is_initialized",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "reset_peak_memory_stats",
    "set_device",
    "stream",
    "Stream",
    "_initialized",
)

_NEEDED = {
    "device": "training through Unsloth, which asks for it",
    "current_device": "training through Unsloth, which asks for it",
    "get_device_properties": "loading a model through Unsloth, which asks for the device's memory",
    "_initialized": "dropout under gradient checkpointing: the mask of the recomputation is another one without a word",
}

CHANGES = (
    *(
        Patch(
            distribution=DISTRIBUTION,
            reviewed=REVIEWED,
            target=f"torch.mps:{name}",
            replacement=f"patcher.replacements.torch.mps:{name}",
            adds=True,
            needed_for=_NEEDED.get(name),
            why=f"Unsloth asks the device's module for {name}, and torch.mps has none",
            upstream=source("torch/mps/__init__.py", "__all__"),
            until=f"the oldest torch that is supported has torch.mps.{name}",
        )
        for name in _NAMES
    ),
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="torch.mps:set_per_process_memory_fraction",
        replacement="patcher.replacements.torch.mps:set_per_process_memory_fraction",
        expects="(fraction)",
        needed_for=None,
        why="a model is refused that cannot fit, and torch does not tell which limit the script has set",
        upstream=source("torch/mps/__init__.py", "set_per_process_memory_fraction"),
        until="torch.mps has a getter of the limit",
    ),
)
