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

``y`` is computed in the head's compute dtype and rounded to it twice, as TRL's kernel does: the product before the bias
is added, and the sum. (A linear layer rounds once.) Everything after it is in fp32. The gradient of a tile is rounded
to the compute dtype once, and the sums over tiles run in fp32. The statistics are folded over the
vocabulary by the online softmax of Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from patcher.ops.logit_tiles import TOKENS, VOCABULARY, Gradients, Head, TileBuffer, spans
from patcher.ops.split_sum import addmm_fp32_

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
    head: Head, targets: Tensor, outputs: tuple[str, ...] = OPTIONAL_OUTPUTS, chunk_size: int = VOCABULARY
) -> LogProbs:
    """The per-row statistics of the module's docstring.

    Args:
        head: hidden states ``[N, H]``, weight ``[V, H]`` and what happens to the logits.
        targets: ``[N]``, int64, in ``[0, V)``.
        outputs: which of `OPTIONAL_OUTPUTS` are wanted.
        chunk_size: the most vocabulary entries of a tile; more than ``VOCABULARY`` are never taken.
    """
    count, vocabulary = len(head.hidden), len(head.weight)
    width = min(chunk_size, VOCABULARY)
    buffer = TileBuffer(min(count, TOKENS), width, head.compute_dtype, head.hidden.device)
    blocks = []
    for first, last in list(spans(count, TOKENS)) or [(0, 0)]:
        rows = head.rows(first, last)
        statistics = _Statistics(targets[first:last], outputs)
        for start, end in spans(vocabulary, width):
            statistics.fold(head.transform(head.logits(rows, start, end, buffer)), start)
        blocks.append(statistics.finish(vocabulary))
    return _concatenate(blocks)


@torch.no_grad()
def chunked_log_prob_backward(
    grad_log_probs: Tensor | None,
    grad_entropy: Tensor | None,
    head: Head,
    targets: Tensor,
    log_z: Tensor,
    entropy: Tensor,
    output_mask: tuple[bool, bool, bool],
    chunk_size: int = VOCABULARY,
) -> Gradients:
    """The gradients of the head's hidden states, weight and bias.

    Args:
        grad_log_probs: ``[N]``; None counts as zero.
        grad_entropy: ``[N]``; None counts as zero.
        head: as in the forward.
        targets: as in the forward.
        log_z: ``[N]``, of the forward.
        entropy: ``[N]``, of the forward; it only counts with ``grad_entropy``.
        output_mask: which of the three are wanted.
        chunk_size: as in the forward.

    Returns:
        Each in its tensor's dtype, None where not wanted. No matmul sums over more than a tile's columns or rows.
    """
    width = min(chunk_size, VOCABULARY)
    totals = grad_hidden, grad_weight, grad_bias = head.zero_gradients(output_mask)
    buffer = TileBuffer(min(len(head.hidden), TOKENS), width, head.compute_dtype, head.hidden.device)
    for first, last in spans(len(head.hidden), TOKENS):
        rows, part = head.rows(first, last), slice(first, last)
        of_log_probs = None if grad_log_probs is None else grad_log_probs[part].to(torch.float32)
        of_entropy = None if grad_entropy is None else grad_entropy[part].to(torch.float32)
        for start, end in spans(len(head.weight), width):
            z, slope = head.transform.with_slope(head.logits(rows, start, end, buffer))
            grad_z = _grad_z(of_log_probs, of_entropy, z, targets[part] - start, log_z[part], entropy[part])
            grad_logits = grad_z.mul_(slope).to(head.compute_dtype)
            if grad_hidden is not None:
                addmm_fp32_(grad_hidden[part], grad_logits, head.columns(start, end))
            if grad_weight is not None:
                addmm_fp32_(grad_weight[start:end], grad_logits.t(), rows)
            if grad_bias is not None:
                grad_bias[start:end] += grad_logits.sum(dim=0, dtype=torch.float32)
    return head.in_own_dtypes(totals)


def _grad_z(
    grad_log_probs: Tensor | None,
    grad_entropy: Tensor | None,
    z: Tensor,
    local: Tensor,
    log_z: Tensor,
    entropy: Tensor,
) -> Tensor:
    """The gradient of one tile's ``z``, fp32 ``[n, w]``; ``z`` is overwritten. ``local`` is the target's column."""
    log_p = z.sub_(log_z[:, None])
    p = torch.exp(log_p)
    grad = torch.zeros_like(p)
    if grad_log_probs is not None:
        grad.addcmul_(p, grad_log_probs[:, None], value=-1)
        here = (local >= 0) & (local < p.shape[1])
        grad.scatter_add_(1, local.clamp(0, p.shape[1] - 1)[:, None], (grad_log_probs * here)[:, None])
    if grad_entropy is not None:
        grad.addcmul_(p.mul_(grad_entropy[:, None]), log_p.add_(entropy[:, None]), value=-1)
    return grad
