"""TRL's SFT, DPO, KTO, GRPO and RLOO trainers compute log-probabilities on mps instead of stopping on a kernel."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution="trl",
    reviewed="==1.15.0",
    needed_for="the loss of SFT, DPO, GRPO and the other trainers with a fused LM head",
    why="The per-token log-probabilities of every trainer with a fused LM head come from a Triton kernel.",
    upstream="trl/kernels/chunked_logprob.py and trl/trainer/utils.py (add_fused_lm_head) in 1.15.0",
    until="TRL >= 1.16 is the oldest version that Unsloth allows; it has a torch fallback.",
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
