"""Attention of Unsloth's models holds no mask of queries by keys: packed rows, windows, padding, soft-capped scores."""

from __future__ import annotations

from patcher.changes.unsloth import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="unsloth.utils.attention_dispatch:run_attention",
        replacement="patcher.replacements.unsloth.attention_dispatch:run_attention",
        expects="(*, config, context, Q, K, V)",
        needed_for=None,
        why="a packed row is one product for each of its texts, a window or padding a mask of queries by keys, and "
        "there is no softcap",
        upstream=source("unsloth/utils/attention_dispatch.py", "run_attention"),
        until="Unsloth has attention of variable length on mps",
    ),
)
