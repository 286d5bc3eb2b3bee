"""Under which conditions the two ``device_type`` modules of Unsloth run on mps."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from patcher.changes.torch.mps import UNSLOTH, ZOO
from patcher.engine.ledger import LEDGER
from patcher.replacements.torch import mps


@contextmanager
def body_of_device_type() -> Iterator[None]:
    """The bodies end where there is no CUDA: they alone are told that there is."""
    before = torch.cuda.is_available

    def is_available() -> bool:
        return sys._getframe(1).f_globals.get("__name__") in (UNSLOTH, ZOO) or before()

    with LEDGER.meanwhile(torch.cuda, "is_available", is_available):
        yield


SUPPORTS_BFLOAT16 = mps.is_bf16_supported()
"""Whether Unsloth chooses bfloat16 where the script chooses nothing."""
