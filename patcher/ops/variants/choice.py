"""The variant of an op that runs on mps."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any

import torch

from patcher.ops.variants import findings, names
from patcher.ops.variants.trial import functions

LOG = logging.getLogger(__name__)

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class Choice(dict[torch.dtype, Any]):
    """By the type of an op's first tensor the module that has the op's functions; None for the op's own, in torch.

    It is decided when it is first asked for. An op asks so::

        if x.is_mps and not is_compiling() and (variant := VARIANT[x.dtype]):
            return variant.rms_norm(x, ...)
    """

    def __init__(self, op: str) -> None:
        self.op = op
        self._lock = threading.RLock()
        names.CHOICES.append(self)

    def __missing__(self, dtype: torch.dtype) -> Any:
        with self._lock:
            if dtype not in self:
                self[dtype] = None  # what the trial itself runs on mps
                self[dtype] = _decided(self.op, dtype)
            return self[dtype]


def _decided(op: str, dtype: torch.dtype) -> Any:
    """The functions of the variant to take; None for torch."""
    asked = names.forced(op)
    candidates = [variant for variant in names.VARIANTS if not names.left_out(variant, op)]
    if asked is not None:
        candidates = [variant for variant in candidates if variant == asked]
    elif sys.platform != "darwin":  # a simulated Mac runs shaders thread by thread
        return None
    if dtype not in DTYPES or not candidates:
        return None
    found = findings.of(op, dtype)
    for variant in candidates:
        if found[variant].wrong:
            LOG.warning("%s runs with torch and not as %s: %s", op, variant, found[variant].wrong)
    right = [variant for variant in candidates if not found[variant].wrong]
    if asked is None:
        right.append(names.TORCH)
    chosen = min(right, key=lambda variant: found[variant].time, default=names.TORCH)
    return None if chosen == names.TORCH else functions(chosen, op)
