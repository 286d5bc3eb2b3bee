"""Losses of a language-model head through unsloth_zoo's entry points."""

from __future__ import annotations

import torch
from unsloth_zoo.fused_losses import fused_linear
from unsloth_zoo.fused_losses.cross_entropy_loss import unsloth_fused_ce_loss


def _leaves(hidden, weight, bias, trained):
    leaves = [hidden.requires_grad_(), weight.requires_grad_(trained)]
    return [*leaves, None if bias is None else bias.requires_grad_(trained)]


def _gradients(leaves):
    return [leaf.grad for leaf in leaves if leaf is not None and leaf.grad is not None]


def loss(hidden, weight, bias, labels, trained, **options):
    """``unsloth_fused_ce_loss``: the loss and its gradients."""
    leaves = _leaves(hidden, weight, bias, trained)
    value = unsloth_fused_ce_loss(None, *leaves, labels, **options)
    value.backward()
    return {"loss": value.detach(), "gradients": _gradients(leaves)}


def log_probs(hidden, weight, bias, targets, trained, grads, **options):
    """``fused_linear_logprobs``: what it gives, and gradients with those of what has one."""
    leaves = _leaves(hidden, weight, bias, trained)
    found = fused_linear.fused_linear_logprobs(leaves[0], leaves[1], targets, bias=leaves[2], **options)
    found = found if isinstance(found, tuple) else (found,)
    outputs = [value for value in found if value.requires_grad]
    torch.autograd.backward(outputs, grads[: len(outputs)])
    return {"found": [value.detach() for value in found], "gradients": _gradients(leaves)}


def with_one_body_replaced(name, case, *arguments, **options):
    """A case of this file with one of this project's bodies beside upstream's others."""
    from patcher.engine import ledger
    from patcher.replacements.unsloth_zoo import fused_linear as replacement

    kept, bodies = getattr(fused_linear, name), fused_linear._OPS
    targets = {f"{replacement.MODULE}:{name}": kept, f"{replacement.MODULE}:_OPS": bodies}
    upstream, ledger_original = replacement.original, ledger.original
    replacement.original = lambda target: targets[target] if target in targets else ledger_original(target)
    try:
        setattr(fused_linear, name, getattr(replacement, name))
        fused_linear._OPS = replacement.OPS
        return {"loss": loss, "log_probs": log_probs}[case](*arguments, **options)
    finally:
        setattr(fused_linear, name, kept)
        fused_linear._OPS, replacement.original = bodies, upstream
