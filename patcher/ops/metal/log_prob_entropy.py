"""`patcher.ops.log_prob_entropy` as Metal shaders: a launch forward, which reads the logits once, and one backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patcher.ops.log_prob_entropy import LogProbEntropy
from patcher.ops.metal.library import group_of, library

EACH = 4
"""Elements of a thread; as in the source."""

GROUP = 256


def log_prob_entropy(
    logits: Tensor, index: Tensor, temperature: float = 1.0, row_mask: Tensor | None = None
) -> LogProbEntropy:
    """As `patcher.ops.log_prob_entropy.log_prob_entropy`."""
    made = LogProbEntropy(*(logits.new_empty(index.shape, dtype=torch.float32) for _ in range(4)))
    if logits.numel():
        samples, rows = _samples(logits), _rows(logits)
        group, index = group_of(logits.shape[-1]), index.contiguous()
        _library(logits, index).forward(
            samples, index, _mask(row_mask, index), *made, [*rows, row_mask is not None, 0, 0], float(temperature),
            threads=index.numel() * group, group_size=group,
        )  # fmt: skip
    return made


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
    """As `patcher.ops.log_prob_entropy.log_prob_entropy_backward`."""
    out = torch.empty_like(logits, memory_format=torch.contiguous_format)
    if logits.numel():
        samples, index, log_z = _samples(logits), index.contiguous(), log_z.contiguous()
        grads = [log_z if each is None else each.float().contiguous() for each in (grad_log_probs, grad_entropy)]
        how = [*_rows(logits), row_mask is not None, grad_log_probs is not None, grad_entropy is not None]
        _library(logits, index).backward(
            *grads, samples, index, _mask(row_mask, index), log_z, expected_logit.contiguous(), out, how,
            float(temperature), threads=(-(-logits.shape[-1] // EACH), index.numel()), group_size=(GROUP, 1),
        )  # fmt: skip
    return out


def _samples(logits: Tensor) -> Tensor:
    """``[samples, rows, V]``: a view, but of logits of more dimensions that have no such one."""
    if logits.stride(-1) != 1:
        logits = logits.contiguous()
    return logits.reshape(-1, *logits.shape[-2:]) if logits.dim() > 1 else logits[None, None]


def _rows(logits: Tensor) -> list[int]:
    """The source's ``Rows``, but for what there is."""
    samples = _samples(logits)
    return [samples.shape[2], samples.shape[1], samples.stride(0), samples.stride(1)]


def _mask(row_mask: Tensor | None, index: Tensor) -> Tensor:
    """Which rows count; where all do nothing reads it."""
    return index if row_mask is None else row_mask.ne(0).contiguous()


def _library(logits: Tensor, index: Tensor) -> Any:
    return library("log_prob_entropy", ("X", logits.dtype), ("L", index.dtype))
