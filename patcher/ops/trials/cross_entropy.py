"""What the variants of cross entropy are tried on: softcap and scale, ignored rows, a label that is almost certain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from patcher.ops.cross_entropy import IGNORED
from patcher.ops.variants.trial import Sample, Tensors, numbers, strided

SHAPES = ((6, 33), (5, 300), (4, 9001), (4, 33000))
"""Rows and tokens: a simdgroup, some, more than a threadgroup holds, and many times as many."""

TIMED = ((256, 32000), (64, 128256))
LEAD = 40.0
"""A logit whose token is almost certain."""

HOW = ((0.0, 0.0), (6.0, 0.0), (0.0, 0.5), (9.0, 2.0))
"""Softcap and scale."""


def checked(dtype: torch.dtype) -> Iterator[Sample]:
    """Samples whose rows lie apart and are not aligned."""
    for rows, vocabulary in SHAPES:
        tensors = _tensors(rows, vocabulary, dtype)
        tensors |= {name: strided(tensors[name]) for name in ("logits", "bounded")}
        yield Sample(f"{rows} x {vocabulary}", tensors, _all, vocabulary, exponent=LEAD)


def timed(dtype: torch.dtype) -> Iterator[Sample]:
    """Samples by the size of a vocabulary."""
    for rows, vocabulary in TIMED:
        yield Sample(str(vocabulary), _tensors(rows, vocabulary, dtype), _plain, vocabulary)


def _tensors(rows: int, vocabulary: int, dtype: torch.dtype) -> dict[str, Tensor]:
    draw = numbers(rows * vocabulary)
    logits, grad = draw(rows, vocabulary) * 3, draw(2 * rows)[::2]
    labels = torch.arange(rows, dtype=torch.int64, device="cpu") * 7 % vocabulary
    labels[1], labels[-1] = IGNORED, vocabulary - 1
    logits[2, 3:9] = -torch.inf
    bounded = logits.clamp(-9, 9)  # where tanh is 1 but for its last digit, 1 - tanh^2 has none that is right
    logits[0, 0] = LEAD  # of the label
    return {"logits": logits.to(dtype), "bounded": bounded.to(dtype), "grad": grad, "labels": labels}


def _plain(ops: Any, t: Tensors) -> dict[str, Tensor]:
    return _once(ops, t, 0.0, 0.0)


def _all(ops: Any, t: Tensors) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for softcap, scale in HOW:
        case = f", softcap {softcap:g} and scale {scale:g}"
        found |= {f"{name}{case}": each for name, each in _once(ops, t, softcap, scale).items()}
    return found


def _once(ops: Any, t: Tensors, softcap: float, scale: float) -> dict[str, Tensor]:
    logits = t["bounded" if softcap else "logits"]
    losses, logsumexp = ops.cross_entropy(logits, t["labels"], softcap, scale)
    grad = ops.cross_entropy_backward(t["grad"], logits, t["labels"], losses, logsumexp, softcap, scale)
    # that of a label that is almost certain has digits of its own, as many as the logits have
    digits = losses.clamp(min=torch.finfo(torch.float32).tiny).log()
    return {"losses": losses, "their logarithms": digits, "logsumexp": logsumexp, "gradient": grad}
