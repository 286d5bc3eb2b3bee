"""Asking Unsloth's loaders for what mps lacks is an error that names the alternative, before anything is downloaded.

fp8, vLLM and FlashAttention, and 4-bit and 8-bit weights without bitsandbytes, where upstream loads 16 bit.
"""

from __future__ import annotations

from patcher.engine.model import AnyChange, Patch

_MODULE = "unsloth.models.loader"

CHANGES: tuple[AnyChange, ...] = tuple(
    Patch(
        distribution="unsloth",
        reviewed="==2026.10.9",
        target=f"{_MODULE}:{loader}.from_pretrained",
        replacement=f"patcher.replacements.unsloth.models_loader:{loader}.from_pretrained",
        # No expects: the arguments are passed on as they come, and read by name from the installed signature.
        needed_for="4-bit weights: without bitsandbytes 16-bit ones are loaded without a word",
        why="without bitsandbytes load_in_4bit=True (the default) loads 16 bit; vLLM and FlashAttention fail late",
        upstream="unsloth 2026.10.9 unsloth/models/loader.py: `if not ALLOW_BITSANDBYTES` in both from_pretrained",
        until="upstream raises where bitsandbytes is missing; the errors for vLLM and FlashAttention stay useful",
    )
    for loader in ("FastLanguageModel", "FastModel")
)
