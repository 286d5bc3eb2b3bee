"""Unsloth sees ``mps``: ``unsloth_zoo.device_type`` answers it everywhere."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch.mps import ZOO, asked_of
from patcher.changes.unsloth_zoo import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import Patch, Substitute

_MODULE = ZOO
_UPSTREAM = source("unsloth_zoo/device_type.py", "get_device_type")
_UNTIL = 'get_device_type answers "mps" on a Mac'
_patch = partial(Patch, distribution=DISTRIBUTION, reviewed=REVIEWED, upstream=_UPSTREAM, until=_UNTIL)

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
            target=f"{_MODULE}:{question.name}",
            replacement=question.answer,
            expects=question.expects,
            needed_for=question.needed_for,
            since=question.since,
            why="answers for the CUDA device that the body was told of, or does nothing",
        )
        for question in asked_of(_MODULE)
    ),
)
