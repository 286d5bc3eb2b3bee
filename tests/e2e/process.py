"""The environment in which the tests start fresh processes."""

from __future__ import annotations

import os

_OURS = ("UNSLOTH_", "PYTORCH_", "PATCHER_VERBOSE", "TOKENIZERS_", "TORCHINDUCTOR_ERROR")


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without the switches that decide what is patched; offline.

    One thread: more of them gain nothing on small models, and wait for each other where the machine is busy.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **extra}
