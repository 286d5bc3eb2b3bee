"""Log-probabilities of given tokens straight from hidden states, without the ``[N, V]`` logits.

For every row ``i`` with target ``c``, over the vocabulary ``j``, with ``y = hidden @ weight.T + bias`` and
``z = transform(y)`` (see `patcher.ops.logit_tiles.LogitTransform`)::

    log_z        = log sum_j exp(z_j)
    log_prob     = z_c - log_z
    entropy      = log_z - sum_j p_j z_j                  p_j = exp(z_j - log_z)
    log_sum_sq   = log sum_j p_j^2
    mean_logits  = sum_j z_j / V
    is_top1      = z_c is the first maximum of its row

    d log_prob / d z_j = [j = c] - p_j                    d entropy / d z_j = -p_j (log p_j + entropy)

``y`` is computed in ``compute_dtype`` (as a plain linear layer would), everything after it in fp32. The gradient of
a tile is rounded to ``compute_dtype`` once, and the sums over tiles run in fp32. The statistics are folded over the
vocabulary by the online softmax of Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from patcher.ops.logit_tiles import (
    TOKENS,
    VOCABULARY,
    LogitTransform,
    TileBuffer,
    addmm_fp32_,
    project,
    spans,
)

OPTIONAL_OUTPUTS = ("entropy", "log_sum_sq_probs", "mean_logits", "is_top1")


class LogProbs(NamedTuple):
    """Everything per row, ``[N]``: fp32, except the bool ``is_top1``; None where it was not asked for."""

    log_probs: Tensor
    entropy: Tensor | None
    log_sum_sq_probs: Tensor | None
    mean_logits: Tensor | None
    is_top1: Tensor | None
    log_z: Tensor


class _Statistics:
    """Running sums of one block of rows while its vocabulary passes by."""

    def __init__(self, targets: Tensor, outputs: tuple[str, ...]) -> None:
        zeros = torch.zeros(targets.shape, dtype=torch.float32, device=targets.device)
        self.targets = targets
        self.outputs = outputs
        self.maximum = torch.full_like(zeros, float("-inf"))
        self.max_before_target = self.maximum
        self.sum_exp = self.sum_z_exp = self.sum_square_exp = self.sum_z = self.target_logit = zeros

    def fold(self, z: Tensor, start: int) -> None:
        """Take in the columns ``z`` that begin at vocabulary entry ``start``."""
        local = self.targets - start
        maximum = torch.maximum(self.maximum, z.amax(dim=1))
        rescale = torch.exp(self.maximum - maximum)
        exp = torch.exp(z - maximum[:, None])
        self.maximum = maximum
        self.sum_exp = self.sum_exp * rescale + exp.sum(dim=1)
        if "entropy" in self.outputs:
            self.sum_z_exp = self.sum_z_exp * rescale + (exp * z).sum(dim=1)
        if "log_sum_sq_probs" in self.outputs:
            self.sum_square_exp = self.sum_square_exp * rescale.square() + exp.square_().sum(dim=1)
        if "mean_logits" in self.outputs:
            self.sum_z = self.sum_z + z.sum(dim=1)
        if "is_top1" in self.outputs:
            column = torch.arange(z.shape[1], device=z.device)
            before = z.masked_fill(column >= local[:, None], float("-inf")).amax(dim=1)
            self.max_before_target = torch.maximum(self.max_before_target, before)
        here = (local >= 0) & (local < z.shape[1])
        value = z.gather(1, local.clamp(0, z.shape[1] - 1)[:, None])[:, 0]
        self.target_logit = torch.where(here, value, self.target_logit)

    def finish(self, vocabulary: int) -> LogProbs:
        log_sum = torch.log(self.sum_exp)
        log_z = self.maximum + log_sum
        first = (self.target_logit >= self.maximum) & (self.target_logit > self.max_before_target)
        return LogProbs(
            log_probs=self.target_logit - log_z,
            entropy=log_z - self.sum_z_exp / self.sum_exp if "entropy" in self.outputs else None,
            log_sum_sq_probs=torch.log(self.sum_square_exp) - 2 * log_sum
            if "log_sum_sq_probs" in self.outputs
            else None,
            mean_logits=self.sum_z / vocabulary if "mean_logits" in self.outputs else None,
            is_top1=first if "is_top1" in self.outputs else None,
            log_z=log_z,
        )


def _concatenate(blocks: list[LogProbs]) -> LogProbs:
    columns = [None if column[0] is None else torch.cat(column) for column in zip(*blocks, strict=True)]
    return LogProbs(*columns)  # type: ignore[arg-type]


@torch.no_grad()
def chunked_log_prob(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    transform: LogitTransform,
    compute_dtype: torch.dtype,
    outputs: tuple[str, ...] = OPTIONAL_OUTPUTS,
    chunk_size: int = VOCABULARY,
) -> LogProbs:
    """The per-row statistics of the module's docstring.

    Args:
        hidden: ``[N, H]``.
        weight: ``[V, H]``; bias: ``[V]`` or None.
        targets: ``[N]``, int64, in ``[0, V)``.
        transform: scale, softcap and temperature of the logits.
        compute_dtype: dtype in which the projection is computed and rounded.
        outputs: which of `OPTIONAL_OUTPUTS` are wanted.
        chunk_size: the most vocabulary entries of a tile; more than ``VOCABULARY`` are never taken.
    """
    width = min(chunk_size, VOCABULARY)
    buffer = TileBuffer(min(len(hidden), TOKENS), width, compute_dtype, hidden.device)
    blocks = []
    for first, last in list(spans(len(hidden), TOKENS)) or [(0, 0)]:
        rows = hidden[first:last].to(compute_dtype)
        statistics = _Statistics(targets[first:last], outputs)
        for start, end in spans(len(weight), width):
            piece = None if bias is None else bias[start:end]
            tile = project(rows, weight[start:end], piece, buffer.tile(last - first, end - start))
            statistics.fold(transform(tile), start)
        blocks.append(statistics.finish(len(weight)))
    return _concatenate(blocks)


def _tile_gradient(
    tile: Tensor,
    transform: LogitTransform,
    local: Tensor,
    log_z: Tensor,
    entropy: Tensor,
    grad_log_probs: Tensor | None,
    grad_entropy: Tensor | None,
) -> Tensor:
    """Gradient with respect to the projection of one tile, fp32 ``[n, w]``."""
    z, slope = transform.with_slope(tile)
    log_p = z.sub_(log_z[:, None])
    p = torch.exp(log_p)
    grad = torch.zeros_like(p)
    if grad_log_probs is not None:
        grad.addcmul_(p, grad_log_probs[:, None], value=-1)
        here = (local >= 0) & (local < p.shape[1])
        grad.scatter_add_(1, local.clamp(0, p.shape[1] - 1)[:, None], (grad_log_probs * here)[:, None])
    if grad_entropy is not None:
        grad.addcmul_(p.mul_(grad_entropy[:, None]), log_p.add_(entropy[:, None]), value=-1)
    return grad.mul_(slope)


@torch.no_grad()
def chunked_log_prob_backward(
    grad_log_probs: Tensor | None,
    grad_entropy: Tensor | None,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    log_z: Tensor,
    entropy: Tensor,
    transform: LogitTransform,
    compute_dtype: torch.dtype,
    needs: tuple[bool, bool, bool],
    chunk_size: int = VOCABULARY,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of ``hidden``, ``weight`` and ``bias`` (None where ``needs`` says so), in their own dtypes.

    ``grad_log_probs`` and ``grad_entropy`` are ``[N]`` or None; ``log_z`` and ``entropy`` come from
    `chunked_log_prob`. No sum runs over more than a tile's columns or rows in one matmul.
    """
    width = min(chunk_size, VOCABULARY)
    totals = [
        torch.zeros_like(t, dtype=torch.float32) if need and t is not None else None
        for t, need in zip((hidden, weight, bias), needs, strict=True)
    ]
    grad_hidden, grad_weight, grad_bias = totals
    buffer = TileBuffer(min(len(hidden), TOKENS), width, compute_dtype, hidden.device)
    for first, last in spans(len(hidden), TOKENS):
        rows = hidden[first:last].to(compute_dtype)
        gp = None if grad_log_probs is None else grad_log_probs[first:last].to(torch.float32)
        ge = None if grad_entropy is None else grad_entropy[first:last].to(torch.float32)
        for start, end in spans(len(weight), width):
            columns = weight[start:end].to(compute_dtype)
            piece = None if bias is None else bias[start:end]
            tile = project(rows, columns, piece, buffer.tile(last - first, end - start))
            local = targets[first:last] - start
            grad = _tile_gradient(tile, transform, local, log_z[first:last], entropy[first:last], gp, ge)
            grad = grad.to(compute_dtype)
            if grad_hidden is not None:
                addmm_fp32_(grad_hidden[first:last], grad, columns)
            if grad_weight is not None:
                addmm_fp32_(grad_weight[start:end], grad.t(), rows)
            if grad_bias is not None:
                grad_bias[start:end] += grad.sum(dim=0, dtype=torch.float32)
    return tuple(  # type: ignore[return-value]
        None if total is None or like is None else total.to(like.dtype)
        for total, like in zip(totals, (hidden, weight, bias), strict=True)
    )
