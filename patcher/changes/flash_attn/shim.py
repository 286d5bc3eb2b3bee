"""``import flash_attn`` works where no flash-attn is installed, and its functions compute, with gradients."""

from __future__ import annotations

from patcher.changes.flash_attn import DISTRIBUTION
from patcher.changes.transformers import source as transformers
from patcher.engine.model import Shim

_VERSION = "2.8.3+patcher"
"""Of the shim, not of the library: the release whose names it has, marked as ours."""

CHANGES: tuple[Shim, ...] = (
    Shim(
        distribution=DISTRIBUTION,
        reviewed=f"=={_VERSION}",
        module="flash_attn",
        version=_VERSION,
        needed_for=None,
        why="scripts and models import its functions, and it has no macOS build",
        upstream=transformers("transformers/modeling_flash_attention_utils.py", "_lazy_imports"),
        until="flash-attn has a macOS build",
    ),
)
