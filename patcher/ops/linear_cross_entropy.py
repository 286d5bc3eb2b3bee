"""Cross entropy of a language-model head against one label per row, without the ``[N, V]`` logits.

`patcher.ops.cross_entropy_rows` has the formulas. Rows whose label is ``ignore_index`` have loss 0 and no gradient, and
nothing is computed for them. Where the head is frozen, one walk over the vocabulary gives loss and gradient, with two
products, as many as a linear layer has, and the backward multiplies by the gradient of the loss. With a head that is
trained, and with label smoothing, the backward computes each tile of logits a second time, as ``log_z`` must be known.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from patcher.ops.bounded_tiles import counted_rows
from patcher.ops.cross_entropy_rows import Rows, Terms, cross_entropy_rows, cross_entropy_rows_backward, spread
from patcher.ops.logit_tiles import Head, LogitTransform


class _Losses(torch.autograd.Function):
    """Losses of all rows; their gradient is kept where the head is frozen."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        transform: LogitTransform,
        terms: Terms,
        ignore_index: int,
        wanted: tuple[bool, bool, bool],
    ) -> Tensor:
        device = hidden.device.type
        narrow = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        head = Head(hidden, weight, bias, transform, narrow)
        index = counted_rows(labels, len(weight), ignore_index)
        kept = labels if index is None else labels.index_select(0, index)
        at_once = wanted == (True, False, False) and not terms.label_smoothing
        wide = torch.float32 if hidden.dtype == torch.float16 else hidden.dtype
        rows = cross_entropy_rows(head, kept, index, terms, gradient=wide if at_once else None)
        ctx.head, ctx.terms, ctx.wanted, ctx.at_once = (transform, narrow), terms, wanted, at_once
        needed = (hidden.new_empty(()).expand_as(hidden), None) if at_once else (hidden, weight)
        ctx.save_for_backward(*needed, bias, kept, index, *rows)
        if index is None:
            return rows.losses
        return torch.zeros(len(labels), dtype=torch.float32, device=labels.device).index_copy_(0, index, rows.losses)

    @staticmethod
    def backward(ctx: Any, grad_losses: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, labels, index, *rest = ctx.saved_tensors
        rows, grad_losses = Rows(*rest), grad_losses if index is None else grad_losses.index_select(0, index)
        if ctx.at_once and rows.gradient is not None:
            return spread(rows.gradient, grad_losses, index, hidden), *(None,) * 7
        head = Head(hidden, weight, bias, *ctx.head)
        return *cross_entropy_rows_backward(grad_losses, head, labels, index, rows, ctx.terms, ctx.wanted), *(None,) * 5


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None = None,
    *,
    ignore_index: int = -100,
    scale: float = 1.0,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    row_weight: Tensor | None = None,
    n_items: Tensor | float | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    """``cross_entropy(transform(linear(hidden, weight, bias)), labels)``, differentiable, without the logits.

    Args:
        hidden: ``[..., H]``; under autocast its dtype decides, as for a linear layer.
        weight: ``[V, H]``.
        labels: ``[...]`` integers, not shifted here.
        bias: ``[V]``.
        ignore_index: the label of rows that do not count.
        scale: factor of the logits.
        softcap: ``softcap * tanh(logits / softcap)``, after the scale; None for none.
        label_smoothing: in ``[0, 1]``.
        z_loss: factor of ``log_z ** 2``.
        row_weight: ``[...]``, what each row's loss is multiplied by; "mean" divides by the sum of those that count.
        n_items: what the sum is divided by instead of the number of rows that count.
        reduction: "none" gives ``[...]`` in fp32; ``n_items`` is not taken then.

    Returns:
        fp32; "mean" of no rows is NaN, as torch's.

    Raises:
        IndexError: a label is neither ``ignore_index`` nor a token.
    """
    flat = labels.reshape(-1).to(hidden.device, torch.int64)
    enabled = torch.is_grad_enabled()
    wanted = tuple(enabled and t is not None and t.requires_grad for t in (hidden, weight, bias))
    terms, transform = Terms(label_smoothing, z_loss), LogitTransform(scale, softcap)
    rows = hidden.reshape(-1, hidden.size(-1))
    arguments = (rows, weight, bias, flat, transform, terms, ignore_index, wanted)
    losses: Tensor = _Losses.apply(*arguments)  # type: ignore[no-untyped-call]
    counts = (flat != ignore_index).to(torch.float32)
    if row_weight is not None:
        counts = counts * row_weight.reshape(-1)
        losses = losses * row_weight.reshape(-1)
    if reduction == "none":
        return losses.view(labels.shape)
    if n_items is not None:
        return losses.sum() / n_items
    return losses.sum() if reduction == "sum" else losses.sum() / counts.sum()
