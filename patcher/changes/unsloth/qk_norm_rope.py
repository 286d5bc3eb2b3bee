"""Qwen3's fused head norm and rotary embedding runs on mps, in training and in generation.

Upstream turns the fused training path on for CUDA only; ``UNSLOTH_FUSED_QKNORM_ROPE=1`` turns it on elsewhere.
"""

from __future__ import annotations

from functools import partial

from patcher.changes.unsloth import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    why="the fused head norm and rotary embedding is a Triton kernel, offered for CUDA tensors only",
    upstream=source("unsloth/kernels/qk_norm_rope.py", "fast_qk_norm_rope"),
    until="fast_qk_norm_rope computes on mps without Triton",
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="unsloth.kernels.qk_norm_rope:_launch_forward",
        replacement="patcher.replacements.unsloth.qk_norm_rope:_launch_forward",
        expects="(Q, K, Wq, Wk, cos, sin, rope_indices, eps_Q, eps_K, has_indices, wrap)",
    ),
    _patch(
        target="unsloth.kernels.qk_norm_rope:_launch_backward",
        replacement="patcher.replacements.unsloth.qk_norm_rope:_launch_backward",
        expects="(dQo, dKo, Q, K, Wq, Wk, rq, rk, cos, sin, rope_indices, has_indices, wrap)",
    ),
    _patch(
        target="unsloth.kernels.qk_norm_rope:fast_qk_norm_rope",
        replacement="patcher.replacements.unsloth.qk_norm_rope:fast_qk_norm_rope",
        expects="(q_norm, k_norm, Q, K, cos, sin, position_ids=None)",
    ),
    _patch(
        target="unsloth.kernels.qk_norm_rope:decode_qk_norm_rope",
        replacement="patcher.replacements.unsloth.qk_norm_rope:decode_qk_norm_rope",
        expects="(q_norm, k_norm, Q, K, cos, sin, position_ids)",
    ),
)
