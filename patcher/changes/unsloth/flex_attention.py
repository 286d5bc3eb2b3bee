"""Gemma 2's attention with soft-capped scores trains on mps without compiling and without an L x L matrix."""

from __future__ import annotations

from patcher.changes.unsloth import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="unsloth.kernels.flex_attention:slow_attention_softcapping",
        replacement="patcher.replacements.unsloth.flex_attention:slow_attention_softcapping",
        expects="(Q, K, V, causal_mask, self, bsz, q_len)",
        needed_for=None,
        why="the function is compiled with max_autotune, and its fallback keeps L x L matrices for the backward",
        upstream=source("unsloth/kernels/flex_attention.py", "slow_attention_softcapping"),
        until="scaled dot product attention takes a softcap on mps",
    ),
)
