"""Unsloth's losses of a language-model head take 32 MiB on mps, whatever the vocabulary and the number of tokens.

SFT's cross entropy and the log-probabilities of GRPO, DPO, KTO, ORPO and the others are three operators of unsloth_zoo.
Their autograd, and what calls them, stay upstream's own.
"""

from __future__ import annotations

from functools import partial

from patcher.changes.unsloth_zoo import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    until="fused_linear.py has a torch variant that holds tiles of logits and no row of them",
)
_body = partial(
    _patch,
    why="without Triton's kernels 512 rows of logits and more are held at a time, in fp32 and several times over",
    upstream=source("unsloth_zoo/fused_losses/fused_linear.py", "_torch_forward"),
)

CHANGES: tuple[AnyChange, ...] = (
    _body(
        target="unsloth_zoo.fused_losses.fused_linear:_ce_impl",
        replacement="patcher.replacements.unsloth_zoo.fused_linear:_ce_impl",
        expects=(
            "(hidden, weight, bias, targets, divisor, scaling, ignore_index, mul, div, cap, label_smoothing,"
            " logits_bias, compute_dtype, need_h, need_w, need_b, fp32_head_grad, rows)"
        ),
    ),
    _body(
        target="unsloth_zoo.fused_losses.fused_linear:_logprobs_impl",
        replacement="patcher.replacements.unsloth_zoo.fused_linear:_logprobs_impl",
        expects=(
            "(hidden, weight, bias, targets, mask, temperature, mul, div, cap, compute_dtype, want_ent, want_mean,"
            " want_lssp, want_top1, want_u, rows, tiled=False, head_grad=False)"
        ),
    ),
    _body(
        target="unsloth_zoo.fused_losses.fused_linear:_logprobs_bwd_impl",
        replacement="patcher.replacements.unsloth_zoo.fused_linear:_logprobs_bwd_impl",
        expects=(
            "(hidden, weight, bias, targets, idx, n_keep, lse, ent, g, ge, block_top, lpt, temperature, mul, div, cap,"
            " compute_dtype, need_h, need_w, need_b, rows)"
        ),
    ),
    _patch(
        target="unsloth_zoo.fused_losses.fused_linear:_OPS",
        replacement="patcher.replacements.unsloth_zoo.fused_linear:OPS",
        why="the operators look their bodies up in a dictionary, not by the names that are changed here",
        upstream=source("unsloth_zoo/fused_losses/fused_linear.py", "_OPS"),
    ),
)
