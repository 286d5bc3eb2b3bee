"""Under which conditions the two ``device_type`` modules of Unsloth run on mps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from patcher import environment
from patcher.replacements.torch import mps


@contextmanager
def body_of_device_type() -> Iterator[None]:
    """The body ends where there is no CUDA; the switch must not outlive it, since TRL patching is skipped under it."""
    with environment.temporarily({"UNSLOTH_ALLOW_CPU": "1"}):
        yield


SUPPORTS_BFLOAT16 = mps.is_bf16_supported()
"""Whether Unsloth chooses bfloat16 where the script chooses nothing."""
