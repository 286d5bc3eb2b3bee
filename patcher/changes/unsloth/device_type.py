"""Unsloth sees ``mps``: ``unsloth.device_type`` answers it everywhere."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch.mps import UNSLOTH, asked_of
from patcher.changes.unsloth import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import Patch, Substitute

_MODULE = UNSLOTH
_UPSTREAM = source("unsloth/device_type.py", "get_device_type")
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
        references={"_DEVICE_MODULE": "torch:mps"},
        may_lack=("_DEVICE_MODULE",),
        why="the body raises, or chooses the CPU, where torch has neither CUDA, XPU nor NPU, and others copy its names",
    ),
    *(
        _patch(
            target=f"{_MODULE}:{question.name}",
            replacement=question.answer,
            expects=question.expects,
            why="answers for the CUDA device that the body was told of",
        )
        for question in asked_of(_MODULE)
    ),
)
