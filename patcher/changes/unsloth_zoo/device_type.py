"""Unsloth sees ``mps``: ``unsloth_zoo.device_type`` answers it everywhere."""

from __future__ import annotations

from functools import partial

from patcher.changes.unsloth_zoo import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import Patch, Substitute

_MODULE = "unsloth_zoo.device_type"
_UPSTREAM = source("unsloth_zoo/device_type.py", "get_device_type")
_UNTIL = 'get_device_type answers "mps" on a Mac'
_patch = partial(Patch, distribution=DISTRIBUTION, reviewed=REVIEWED, upstream=_UPSTREAM, until=_UNTIL, needed_for=None)

CHANGES = (
    Substitute(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        upstream=_UPSTREAM,
        until=_UNTIL,
        module=_MODULE,
        around="patcher.replacements.unsloth.device_type:body_of_device_type",
        needed_for="Unsloth to see mps at all",
        constants={"DEVICE_TYPE": "mps", "DEVICE_TYPE_TORCH": "mps", "DEVICE_COUNT": 1},
        why="the body raises, or chooses the CPU, where torch has neither CUDA, XPU nor NPU, and others copy its names",
    ),
    *(
        _patch(
            target=f"{_MODULE}:{name}",
            replacement=f"patcher.replacements.unsloth.device_type:{name}",
            expects="()",
            why="answers for the CUDA device that the body was told of, or does nothing",
        )
        for name in (
            "get_device_type",
            "get_device_count",
            "device_synchronize",
            "device_empty_cache",
            "device_is_bf16_supported",
        )
    ),
)
