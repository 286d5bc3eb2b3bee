"""``torch.optim.adam._fused_adam`` with the counts of steps side by side in one buffer, which one kernel increments."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from patcher.engine.ledger import original


def _fused_adam(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    state_steps: list[Tensor],
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
    *,
    amsgrad: bool,
    has_complex: bool,
    beta1: float | Tensor,
    beta2: float | Tensor,
    lr: float | Tensor,
    weight_decay: float,
    eps: float,
    maximize: bool,
    capturable: bool,
    differentiable: bool,
    decoupled_weight_decay: bool,
) -> None:
    """As torch, to the bit; ``state_steps``, which belong to the optimizer alone, become parts of one buffer."""
    factors = (beta1, beta2, lr, grad_scale, found_inf)
    of_mps = all(p.device.type == "mps" for p in (*params, *(f for f in factors if isinstance(f, Tensor))))
    if len(params) < 2 or differentiable or not of_mps or any(isinstance(f, Tensor) for f in (beta1, beta2)):
        original("torch.optim.adam:_fused_adam")(
            params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, state_steps, grad_scale, found_inf,
            amsgrad=amsgrad, has_complex=has_complex, beta1=beta1, beta2=beta2, lr=lr, weight_decay=weight_decay,
            eps=eps, maximize=maximize, capturable=capturable, differentiable=differentiable,
            decoupled_weight_decay=decoupled_weight_decay,
        )  # fmt: skip
        return
    counts = side_by_side(state_steps)
    counts.add_(1)
    update: Any = torch._fused_adamw_ if decoupled_weight_decay else torch._fused_adam_
    for state in _by_dtype(params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, state_steps):
        update(
            *state, amsgrad=amsgrad, lr=lr, beta1=beta1, beta2=beta2, weight_decay=weight_decay, eps=eps,
            maximize=maximize, grad_scale=grad_scale, found_inf=found_inf,
        )  # fmt: skip
    if found_inf is not None:
        counts.sub_(found_inf)


def side_by_side(counts: list[Tensor]) -> Tensor:
    """One tensor that all ``counts``, fp32 numbers, are parts of, in their order; they are moved where they are not."""
    places = [(count.untyped_storage().data_ptr(), count.storage_offset()) for count in counts]
    if any(there[0] != here[0] or there[1] != here[1] + 1 for here, there in pairwise(places)):
        together = torch.stack(counts)
        for count, part in zip(counts, together.unbind(), strict=True):
            count.data = part
    return counts[0].as_strided((len(counts),), (1,))


def _by_dtype(params: list[Tensor], *others: list[Tensor]) -> list[list[list[Tensor]]]:
    """All lists, in which those of parameters of one dtype stand together; an empty list stays empty."""
    groups: dict[torch.dtype, list[list[Tensor]]] = {}
    for place, param in enumerate(params):
        into = groups.setdefault(param.dtype, [[] for _ in (params, *others)])
        for part, tensors in zip(into, (params, *others), strict=True):
            part.extend(tensors[place : place + 1])
    return list(groups.values())
