"""What the two ``device_type`` modules of Unsloth answer on mps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from patcher import environment
from patcher.engine.ledger import current_machine
from patcher.replacements.torch import mps


@contextmanager
def body_of_device_type() -> Iterator[None]:
    """The body ends where there is no CUDA; the switch must not outlive it, since TRL patching is skipped under it."""
    with environment.temporarily({"UNSLOTH_ALLOW_CPU": "1"}):
        yield


def get_device_type() -> str:
    """``"mps"``."""
    return "mps"


def get_device_count() -> int:
    """1: a Mac has one GPU."""
    return 1


def get_device_stats() -> tuple[str, str, float]:
    """(name, system, memory in GiB) for Unsloth's banner."""
    here = current_machine()
    system = f"macOS {here.macos[0]}.{here.macos[1]}" if here.macos else here.system
    kind = "simulated Mac" if here.simulated else "Metal"
    memory = round(mps.get_device_properties().total_memory / 1024**3, 3)
    return f"{here.chip}. ", f"{kind}, {system}.", memory


def device_synchronize() -> None:
    """Waits for all work on mps."""
    torch.mps.synchronize()


def device_empty_cache() -> None:
    """Gives cached memory back to Metal."""
    torch.mps.empty_cache()


def device_is_bf16_supported() -> bool:
    """Whether bfloat16 works on this Mac."""
    return mps.is_bf16_supported()


SUPPORTS_BFLOAT16 = mps.is_bf16_supported()
"""Whether Unsloth chooses bfloat16 where the script chooses nothing."""
