"""Fused Adam and AdamW count their steps with one kernel."""

from __future__ import annotations

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="torch.optim.adam:_fused_adam",
        replacement="patcher.replacements.torch.fused_adam:_fused_adam",
        expects=(
            "(params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, state_steps, grad_scale, found_inf, *, amsgrad,"
            " has_complex, beta1, beta2, lr, weight_decay, eps, maximize, capturable, differentiable,"
            " decoupled_weight_decay)"
        ),
        needed_for=None,
        why="mps has no kernel of _foreach_add_, so that the fused step, one kernel, comes after one kernel for each "
        "parameter that adds 1 to its count",
        upstream=source("torch/optim/adam.py", "_fused_adam"),
        until="torch's mps backend has a kernel of _foreach_add_ for many tensors",
    ),
)
