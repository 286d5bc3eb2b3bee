"""TRL's distillation trainers compute their divergence on mps instead of stopping on a kernel."""

from __future__ import annotations

from functools import partial

from patcher.changes.trl import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    why="the divergence between student and teacher comes from a Triton kernel",
    upstream=source("trl/kernels/chunked_divergence.py", "ChunkedDivergenceFunction"),
    until="ChunkedDivergenceFunction has a torch variant",
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="trl.kernels.chunked_divergence:ChunkedDivergenceFunction.forward",
        replacement="patcher.replacements.trl.chunked_divergence:forward",
        expects=(
            "(ctx, student_hidden, student_weight, student_bias, teacher_hidden, teacher_weight, teacher_bias, beta,"
            " temperature=1.0, student_logit_scale=1.0, student_final_logit_softcapping=None,"
            " teacher_logit_scale=1.0, teacher_final_logit_softcapping=None)"
        ),
    ),
    _patch(
        target="trl.kernels.chunked_divergence:ChunkedDivergenceFunction.backward",
        replacement="patcher.replacements.trl.chunked_divergence:backward",
        expects="(ctx, grad_divergence, _)",
    ),
)
