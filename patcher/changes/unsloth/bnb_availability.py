"""``load_in_4bit`` and ``load_in_8bit`` stay switched on in Unsloth where bitsandbytes has operators for mps."""

from __future__ import annotations

from patcher.changes.unsloth import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="unsloth.bnb_availability:native_kernels_ready",
        replacement="patcher.replacements.unsloth.bnb_availability:native_kernels_ready",
        expects="(bnb, device_type)",
        needed_for="4-bit weights: 16-bit ones are loaded in their place without a word",
        why="it asks for CUDA symbols of the native library, finds none, and 4-bit requests then load 16 bit",
        since="2026.7.6",
        upstream=source("unsloth/device_type.py", "ALLOW_BITSANDBYTES"),
        until="native_kernels_ready is True for mps where bitsandbytes has operators for it",
    ),
)
