"""TRL's log-probabilities and entropies from given logits are computed in fp32 on mps, as they are on CUDA."""

from __future__ import annotations

from functools import partial

from patcher.changes.trl import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for="log-probabilities of half-precision logits, which have 8 bits without a word",
    upstream=source("trl/kernels/logprob_entropy.py", "_LogProbEntropyFunction"),
    since="1.14",
    until="TRL's fallback computes in fp32, or _LogProbEntropyFunction has a torch variant",
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="trl.kernels.logprob_entropy:_LogProbEntropyFunction.forward",
        replacement="patcher.replacements.trl.logprob_entropy:forward",
        needed_for=None,
        expects="(ctx, logits, index, temperature, row_mask)",
        why="the selected log-probabilities and the entropy come from a Triton kernel",
    ),
    _patch(
        target="trl.kernels.logprob_entropy:_LogProbEntropyFunction.backward",
        replacement="patcher.replacements.trl.logprob_entropy:backward",
        needed_for=None,
        expects="(ctx, grad_logprobs, grad_entropy)",
        why="the gradient of the logits comes from a Triton kernel",
    ),
    _patch(
        target="trl.trainer.utils:_supports_trl_loss_kernel",
        replacement="patcher.replacements.trl.logprob_entropy:_supports_trl_loss_kernel",
        expects="(logits, index=None, row_mask=None)",
        why="devices other than cuda and xpu get log-probabilities in the logits' own dtype: 8 bits of bf16",
    ),
)
