"""Log-probability of one token per row and the row's entropy, in one pass over given logits.

For logits ``x`` of any dtype, in fp32 with ``z = x / temperature`` and ``p = softmax(z)``::

    log_prob = z_index - log_z      log_z    = log sum_j exp(z_j)
    entropy  = log_z - expected     expected = sum_j p_j z_j

    d log_prob / d x_j = ([j = index] - p_j) / temperature
    d entropy  / d x_j = p_j (expected - z_j) / temperature

Masked rows give zero, forward and backward, whatever their logits hold. At most `ELEMENTS` logits are held in fp32 at
once.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_compiling

from patcher.ops.logit_tiles import spans
from patcher.ops.variants.choice import Choice

VARIANT = Choice("log_prob_entropy")

ELEMENTS = 1 << 23
"""Logits that are held in fp32 at once (32 MiB)."""


class LogProbEntropy(NamedTuple):
    """fp32, of the index's shape."""

    log_probs: Tensor
    entropy: Tensor
    log_z: Tensor
    expected_logit: Tensor


@torch.no_grad()
def log_prob_entropy(
    logits: Tensor, index: Tensor, temperature: float = 1.0, row_mask: Tensor | None = None
) -> LogProbEntropy:
    """The quantities of the module's docstring.

    Args:
        logits: ``[..., V]``, any strides.
        index: ``[...]``, an integer dtype.
        temperature: divides the logits.
        row_mask: ``[...]``; rows holding zero are skipped and give zero.
    """
    if logits.is_mps and not is_compiling() and (variant := VARIANT[logits.dtype]):
        return variant.log_prob_entropy(logits, index, temperature, row_mask)  # type: ignore[no-any-return]
    results = LogProbEntropy(*(logits.new_empty(index.shape, dtype=torch.float32) for _ in range(4)))
    for rows in _blocks(logits.shape):
        z = logits[rows].to(torch.float32) / temperature
        masked = None if row_mask is None else row_mask[rows] == 0
        if masked is not None:
            z.masked_fill_(masked[:, None], 0.0)
        log_z = torch.logsumexp(z, dim=1)
        target = z.gather(1, index[rows].to(torch.int64)[:, None])[:, 0]
        expected = torch.exp(z - log_z[:, None]).mul_(z).sum(dim=1)
        values = (target - log_z, log_z - expected, log_z, expected)
        for result, value in zip(results, values, strict=True):
            result[rows].copy_(value if masked is None else value.masked_fill(masked, 0.0))
    return results


@torch.no_grad()
def log_prob_entropy_backward(
    grad_log_probs: Tensor | None,
    grad_entropy: Tensor | None,
    logits: Tensor,
    index: Tensor,
    log_z: Tensor,
    expected_logit: Tensor,
    temperature: float = 1.0,
    row_mask: Tensor | None = None,
) -> Tensor:
    """The gradient of ``logits``: contiguous, in their dtype.

    Args:
        grad_log_probs: ``[...]``; None counts as zero.
        grad_entropy: ``[...]``; None counts as zero.
        logits: as in the forward.
        index: as in the forward.
        log_z: ``[...]``, of the forward.
        expected_logit: ``[...]``, of the forward.
        temperature: as in the forward.
        row_mask: as in the forward; rows holding zero get a gradient of zero.
    """
    if logits.is_mps and not is_compiling() and (variant := VARIANT[logits.dtype]):
        return variant.log_prob_entropy_backward(  # type: ignore[no-any-return]
            grad_log_probs, grad_entropy, logits, index, log_z, expected_logit, temperature, row_mask
        )
    grad_logits = torch.empty_like(logits, memory_format=torch.contiguous_format)
    for rows in _blocks(logits.shape):
        z = logits[rows].to(torch.float32) / temperature
        p = torch.exp(z - log_z[rows][:, None])
        grad = torch.zeros_like(z)
        if grad_log_probs is not None:
            of_log_probs = grad_log_probs[rows].to(torch.float32)[:, None]
            target = index[rows].to(torch.int64)[:, None]
            grad.addcmul_(p, of_log_probs, value=-1).scatter_add_(1, target, of_log_probs)
        if grad_entropy is not None:
            of_entropy = grad_entropy[rows].to(torch.float32)[:, None]
            grad.addcmul_(p.mul_(of_entropy), expected_logit[rows][:, None] - z)
        grad.div_(temperature)
        if row_mask is not None:
            grad.masked_fill_((row_mask[rows] == 0)[:, None], 0.0)
        grad_logits[rows].copy_(grad)
    return grad_logits


def _blocks(shape: torch.Size) -> Iterator[tuple[int | slice | None, ...]]:
    """Indices of consecutive rows of logits ``[..., V]``, of at most `ELEMENTS` logits or one row.

    Each gives a view of ``[n, V]`` of the logits, and of ``[n]`` of what has one value per row.
    """
    if len(shape) == 1:
        yield (None,)
        return
    *batch, count, vocabulary = shape
    for place in product(*map(range, batch)):
        for start, end in spans(count, max(1, ELEMENTS // vocabulary)):
            yield (*place, slice(start, end))
