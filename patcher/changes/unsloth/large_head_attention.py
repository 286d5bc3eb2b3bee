"""Unsloth's attention for head dimensions above 256 runs on mps where it is called."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution="unsloth",
    reviewed="==2026.10.9",
    why="Forward and backward are Triton kernels.",
    upstream="unsloth 2026.10.9 unsloth/kernels/large_head_attention.py",
    until="Unsloth has a torch variant of it.",
    needed_for=None,
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="unsloth.kernels.large_head_attention:_fwd_impl",
        replacement="patcher.replacements.unsloth.large_head_attention:_fwd_impl",
        expects="(q, k, v, lo, hi, scale)",
    ),
    _patch(
        target="unsloth.kernels.large_head_attention:_bwd_impl",
        replacement="patcher.replacements.unsloth.large_head_attention:_bwd_impl",
        expects="(do, q, k, v, o, lse, lo, hi, scale)",
    ),
)
