"""Asking Unsloth's loaders for what mps lacks is an error that names the alternative, before anything is downloaded.

fp8 and vLLM, and 4-bit and 8-bit weights without bitsandbytes, where upstream loads 16 bit.
"""

from __future__ import annotations

from patcher.changes.unsloth import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_MODULE = "unsloth.models.loader"

CHANGES: tuple[AnyChange, ...] = tuple(
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target=f"{_MODULE}:{loader}.from_pretrained",
        replacement=f"patcher.replacements.unsloth.models_loader:{loader}.from_pretrained",
        # No expects: the arguments are passed on as they come, and read by name from the installed signature.
        needed_for="4-bit weights: without bitsandbytes 16-bit ones are loaded without a word",
        why="load_in_4bit=True (the default) loads 16 bit without bitsandbytes, and vLLM fails late",
        upstream=source("unsloth/models/loader.py", "FastLanguageModel.from_pretrained"),
        until="both from_pretrained raise for load_in_4bit without bitsandbytes, and for vLLM without CUDA",
    )
    for loader in ("FastLanguageModel", "FastModel")
)
