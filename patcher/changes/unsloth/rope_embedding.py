"""Rotary embedding runs on mps: the one function through which all of upstream's entry points launch their kernel.

``fast_rope_embedding``, the three ``Fast_RoPE_Embedding*`` functions with their in-place rules, and
``inplace_rope_embedding`` (plain torch) stay upstream's own. ``decode_rope_inplace`` refuses every tensor that is not
on CUDA, so it is replaced too.
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
    why="every attention layer rotates queries and keys with a Triton kernel, which runs on torch operators one by one",
    upstream=source("unsloth/kernels/rope_embedding.py", "_rope_launch"),
    until="_rope_launch has a torch variant",
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="unsloth.kernels.rope_embedding:_rope_launch",
        replacement="patcher.replacements.unsloth.rope_embedding:_rope_launch",
        expects="(Q, Q_out, K, K_out, cos, sin, rope_ptr, has_indices, backward, cast_to_sin, wrap)",
    ),
    _patch(
        target="unsloth.kernels.rope_embedding:decode_rope_inplace",
        replacement="patcher.replacements.unsloth.rope_embedding:decode_rope_inplace",
        expects="(Q, K, cos, sin, position_ids)",
    ),
)
