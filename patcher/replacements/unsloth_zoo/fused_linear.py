"""Bodies of the operators in ``unsloth_zoo.fused_losses.fused_linear``: cross entropy and log-probabilities.

They take and give what upstream's bodies do, so that each may be left out alone; float64, which the CPU has, is left to
upstream's.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from patcher.engine.ledger import original
from patcher.ops.bounded_tiles import counted_rows, positions
from patcher.ops.cross_entropy_rows import Rows, Terms, cross_entropy_rows, cross_entropy_rows_backward
from patcher.ops.logit_tiles import Head, LogitTransform
from patcher.replacements.torch.indexing import on_host

MODULE = "unsloth_zoo.fused_losses.fused_linear"


class _Operators:
    """Upstream's dictionary of bodies, with those that stand under the module's own names."""

    def __getitem__(self, key: str) -> Any:
        ours = {"ce_impl": _ce_impl, "lp_impl": _logprobs_impl, "lp_bwd_impl": _logprobs_bwd_impl}.get(key)
        if ours is not None and getattr(importlib.import_module(MODULE), ours.__name__) is ours:
            return ours
        return original(f"{MODULE}:_OPS")[key]


OPS = _Operators()


def _transform(temperature: float, mul: float, div: float, cap: float) -> LogitTransform:
    """``cap * tanh(y * mul / div / cap) / temperature``; a factor of 0 is none."""
    return LogitTransform((mul or 1.0) / (div or 1.0), cap or None, temperature)


def _ce_impl(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    divisor: Tensor,
    scaling: Tensor,
    ignore_index: int,
    mul: float,
    div: float,
    cap: float,
    label_smoothing: float,
    logits_bias: Tensor | None,
    compute_dtype: torch.dtype,
    need_h: bool,
    need_w: bool,
    need_b: bool,
    fp32_head_grad: bool,
    rows: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sum of losses over ``divisor``, and gradients of ``scaling`` times it; without elements where not needed."""
    if compute_dtype == torch.float64:
        arguments = (mul, div, cap, label_smoothing, logits_bias, compute_dtype, need_h, need_w, need_b)
        given = (hidden, weight, bias, targets, divisor, scaling, ignore_index, *arguments, fp32_head_grad, rows)
        return original(f"{MODULE}:_ce_impl")(*given)  # type: ignore[no-any-return]
    biases = [term.to(torch.float32) for term in (bias, logits_bias) if term is not None]
    head = Head(hidden, weight, sum(biases) if biases else None, _transform(1.0, mul, div, cap), compute_dtype)  # type: ignore[arg-type]
    index = counted_rows(targets, len(weight), ignore_index, on_host(targets) if targets.is_mps else None)
    labels = targets.long() if index is None else targets.index_select(0, index).long()
    factor = (scaling.to(torch.float32) / divisor.to(torch.float32)).reshape(())
    terms, needed = Terms(label_smoothing), (need_h, need_w, need_b)
    at_once = needed == (True, False, False) and not label_smoothing
    found = cross_entropy_rows(head, labels, index, terms, gradient=hidden.dtype if at_once else None, factor=factor)
    gradients: tuple[Tensor | None, ...] = (None, None, None)
    if found.gradient is not None:
        gradients = (_placed(found.gradient, index, len(hidden)), None, None)
    elif any(needed):
        grad_losses = factor.expand(len(labels)).contiguous()
        gradients = cross_entropy_rows_backward(grad_losses, head, labels, index, found, terms, needed)
    grad_h, grad_w, grad_b = (hidden.new_empty(0) if gradient is None else gradient for gradient in gradients)
    loss = found.losses.sum() / divisor.to(torch.float32).reshape(())
    return loss, grad_h, grad_w, grad_b if bias is None or not need_b else grad_b.to(bias.dtype)


def _logprobs_impl(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    mask: Tensor | None,
    temperature: float,
    mul: float,
    div: float,
    cap: float,
    compute_dtype: torch.dtype,
    want_ent: bool,
    want_mean: bool,
    want_lssp: bool,
    want_top1: bool,
    want_u: bool,
    rows: int,
    tiled: bool = False,
    head_grad: bool = False,
) -> tuple[Tensor, ...]:
    """Log-probabilities, what else is wanted, their gradient if ``want_u``, and what the backward reads.

    Per row: log-probability, entropy, mean logit before the temperature, ``log sum p^2``, whether it is the likeliest,
    gradient, ``log_z``; then nothing, positions of the rows that count, their number (on the CPU), and the
    log-probabilities once more.
    """
    if compute_dtype == torch.float64:
        given = (hidden, weight, bias, targets, mask, temperature, mul, div, cap, compute_dtype, want_ent, want_mean)
        arguments = (want_lssp, want_top1, want_u, rows, tiled, head_grad)
        return original(f"{MODULE}:_logprobs_impl")(*given, *arguments)  # type: ignore[no-any-return]
    count, names = len(hidden), {"entropy": want_ent, "mean": want_mean, "log_sum_square": want_lssp}
    counts = (targets >= 0) & (targets < len(weight))
    if mask is not None:
        counts &= mask.to(torch.bool)
    kept = int(counts.sum())
    index = None if kept == count else positions(counts, kept)
    found = cross_entropy_rows(
        Head(hidden, weight, bias, _transform(temperature, mul, div, cap), compute_dtype),
        targets.long() if index is None else targets.index_select(0, index).long(),
        index,
        wanted=tuple(name for name, wanted in (*names.items(), ("is_top1", want_top1)) if wanted),
        gradient=(torch.float32 if hidden.dtype == torch.float16 else hidden.dtype) if want_u else None,
        factor=-1.0,
    )
    mean = None if found.mean is None else found.mean * temperature
    extras = (found.entropy, mean, found.log_sum_square, found.is_top1)
    log_probs, log_z, *extras_of_rows, gradient = (
        None if value is None else _placed(value, index, count)
        for value in (-found.nll, found.log_z, *extras, found.gradient)
    )
    assert log_probs is not None and log_z is not None
    nothing = log_z.new_empty(0)
    empty = (nothing, nothing.clone(), nothing.clone(), nothing.to(torch.bool))
    filled = [value if other is None else other for value, other in zip(empty, extras_of_rows, strict=True)]
    places = positions(counts, kept)
    places = torch.cat((places, places.new_zeros(count - kept)))
    gradient = hidden.new_empty(0) if gradient is None else gradient
    return log_probs, *filled, gradient, log_z, nothing.clone(), places, torch.tensor([kept]), log_probs.clone()


def _logprobs_bwd_impl(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    idx: Tensor,
    n_keep: Tensor,
    lse: Tensor,
    ent: Tensor,
    g: Tensor,
    ge: Tensor,
    block_top: Tensor,
    lpt: Tensor,
    temperature: float,
    mul: float,
    div: float,
    cap: float,
    compute_dtype: torch.dtype,
    need_h: bool,
    need_w: bool,
    need_b: bool,
    rows: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of hidden states, weight and bias; without elements where not needed."""
    if compute_dtype == torch.float64:
        given = (hidden, weight, bias, targets, idx, n_keep, lse, ent, g, ge, block_top, lpt, temperature, mul, div)
        arguments = (cap, compute_dtype, need_h, need_w, need_b, rows)
        return original(f"{MODULE}:_logprobs_bwd_impl")(*given, *arguments)  # type: ignore[no-any-return]
    kept = int(n_keep[0])  # on the CPU
    index = None if kept == len(hidden) else idx[:kept]

    def chosen(values: Tensor) -> Tensor:
        return values if index is None else values.index_select(0, index)

    nll = -chosen(lpt)
    gradients = cross_entropy_rows_backward(
        -chosen(g),
        Head(hidden, weight, bias, _transform(temperature, mul, div, cap), compute_dtype),
        chosen(targets).long(),
        index,
        Rows(nll, nll, chosen(lse), chosen(ent) if ge.numel() else None),
        Terms(),
        (need_h, need_w, need_b),
        grad_entropy=chosen(ge) if ge.numel() else None,
    )
    grad_h, grad_w, grad_b = (hidden.new_empty(0) if gradient is None else gradient for gradient in gradients)
    return grad_h, grad_w, grad_b


def _placed(rows: Tensor, index: Tensor | None, count: int) -> Tensor:
    """The rows at their places among zeros, ``[count, ...]``."""
    if index is None:
        return rows
    return rows.new_zeros(count, *rows.shape[1:]).index_copy_(0, index, rows)
