"""TRL's SFT, DPO, KTO, GRPO and RLOO trainers compute log-probabilities on mps without launching Triton kernels."""

from __future__ import annotations

from functools import partial

from patcher.changes.trl import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    why="the log-probabilities of every trainer with a fused LM head come from a Triton kernel, which runs on torch "
    "operators one by one",
    upstream=source("trl/kernels/chunked_logprob.py", "ChunkedLogProbFunction"),
    since="1.15",
    until="the oldest TRL that Unsloth allows is 1.16, which has a torch variant",
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="trl.kernels.chunked_logprob:ChunkedLogProbFunction.forward",
        replacement="patcher.replacements.trl.chunked_logprob:forward",
        expects=(
            "(ctx, hidden, weight, bias, targets, temperature, chunk_size,"
            " final_logit_softcapping=None, logit_scale=1.0, outputs=())"
        ),
    ),
    _patch(
        target="trl.kernels.chunked_logprob:ChunkedLogProbFunction.backward",
        replacement="patcher.replacements.trl.chunked_logprob:backward",
        expects="(ctx, grad_logprobs, grad_entropy, *_)",
    ),
)
