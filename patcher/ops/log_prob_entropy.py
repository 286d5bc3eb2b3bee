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
from typing import NamedTuple

import torch
from torch import Tensor

from patcher.ops.logit_tiles import spans

ELEMENTS = 1 << 23
"""Logits that are held in fp32 at once (32 MiB)."""


class LogProbEntropy(NamedTuple):
    """fp32, of the index's shape."""

    log_probs: Tensor
    entropy: Tensor
    log_z: Tensor
    expected_logit: Tensor


def _blocks(logits: Tensor, *others: Tensor | None) -> Iterator[tuple[Tensor | None, ...]]:
    """Matching views of ``logits`` as ``[rows, V]`` and of the others as ``[rows]``, without copying the logits."""
    if logits.ndim > 2:
        for i in range(logits.shape[0]):
            yield from _blocks(logits[i], *(None if o is None else o[i] for o in others))
        return
    if logits.ndim == 1:
        logits, others = (
            logits[None],
            tuple(None if o is None else o[None] for o in others),
        )
    rows = max(1, ELEMENTS // logits.shape[-1])
    for start, end in spans(len(logits), rows):
        yield (
            logits[start:end],
            *(None if o is None else o[start:end] for o in others),
        )


@torch.no_grad()
def log_prob_entropy(
    logits: Tensor,
    index: Tensor,
    temperature: float = 1.0,
    row_mask: Tensor | None = None,
) -> LogProbEntropy:
    """The quantities of the module's docstring.

    Args:
        logits: ``[..., V]``, any strides.
        index: ``[...]``, an integer dtype.
        row_mask: ``[...]``; rows holding zero are skipped and give zero.
    """
    results = LogProbEntropy(*(logits.new_empty(index.shape, dtype=torch.float32) for _ in range(4)))
    for x, i, mask, *outputs in _blocks(logits, index, row_mask, *results):
        assert x is not None and i is not None
        z = x.to(torch.float32) / temperature
        if mask is not None:
            z.masked_fill_((mask == 0)[:, None], 0.0)
        log_z = torch.logsumexp(z, dim=1)
        target = z.gather(1, i.to(torch.int64)[:, None])[:, 0]
        expected = torch.exp(z - log_z[:, None]).mul_(z).sum(dim=1)
        values = (target - log_z, log_z - expected, log_z, expected)
        for out, value in zip(outputs, values, strict=True):
            assert out is not None
            out.copy_(value if mask is None else value.masked_fill(mask == 0, 0.0))
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
    """Gradient of ``logits``: contiguous, in their dtype. A gradient that is None counts as zero."""
    result = torch.empty_like(logits, memory_format=torch.contiguous_format)
    blocks = _blocks(
        logits,
        result,
        index,
        row_mask,
        log_z,
        expected_logit,
        grad_log_probs,
        grad_entropy,
    )
    for x, out, i, mask, lz, expected, glp, ge in blocks:
        assert x is not None and out is not None and i is not None and lz is not None and expected is not None
        z = x.to(torch.float32) / temperature
        p = torch.exp(z - lz[:, None])
        grad = torch.zeros_like(z)
        if glp is not None:
            glp = glp.to(torch.float32)[:, None]
            grad.addcmul_(p, glp, value=-1).scatter_add_(1, i.to(torch.int64)[:, None], glp)
        if ge is not None:
            grad.addcmul_(p.mul_(ge.to(torch.float32)[:, None]), expected[:, None] - z)
        grad.div_(temperature)
        if mask is not None:
            grad.masked_fill_((mask == 0)[:, None], 0.0)
        out.copy_(grad)
    return result
