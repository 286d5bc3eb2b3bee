"""What the variants of log-probability and entropy are tried on: slices of samples, masks, one gradient or both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from patcher.ops.variants.trial import Sample, Tensors, numbers

SHAPES = ((2, 3, 33), (1, 5, 300), (2, 2, 9001), (1, 2, 33000))
"""Samples, tokens, and size of the vocabulary."""

TIMED = ((1, 256, 32000), (1, 64, 128256))


def checked(dtype: torch.dtype) -> Iterator[Sample]:
    """Samples of all tokens but the last, as TRL takes them."""
    for shape in SHAPES:
        yield Sample(" x ".join(map(str, shape)), _tensors(shape, dtype), _all, shape[-1], exponent=24)


def timed(dtype: torch.dtype) -> Iterator[Sample]:
    """Samples by the size of a vocabulary."""
    for shape in TIMED:
        yield Sample(str(shape[-1]), _tensors(shape, dtype), _plain, shape[-1])


def _tensors(shape: tuple[int, int, int], dtype: torch.dtype) -> dict[str, Tensor]:
    samples, tokens, vocabulary = shape
    draw = numbers(vocabulary)
    # no token is almost certain: 1 - p has few digits then
    logits = draw(samples, tokens + 1, vocabulary + 1).to(dtype)[:, :-1, 1:]
    index = torch.arange(samples * tokens, dtype=torch.int64, device="cpu").mul(7).view(samples, tokens) % vocabulary
    index[-1, -1] = vocabulary - 1
    mask = (torch.arange(samples * tokens, device="cpu") % 3 != 1).view(samples, tokens).int()
    grads = {"of log_probs": draw(samples, tokens), "of entropy": draw(samples, tokens)}
    return {"logits": logits, "index": index, "mask": mask, **grads}


def _plain(ops: Any, t: Tensors) -> dict[str, Tensor]:
    return _once(ops, t, 1.0, None, (t["of log_probs"], None))


def _all(ops: Any, t: Tensors) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    both = t["of log_probs"], t["of entropy"]
    cases = {"": (1.0, None, both), ", masked": (0.7, t["mask"], both), ", one": (1.3, None, (both[0], None)),
             ", the other": (1.0, t["mask"], (None, both[1]))}  # fmt: skip
    for case, (temperature, mask, grads) in cases.items():
        found |= {f"{name}{case}": each for name, each in _once(ops, t, temperature, mask, grads).items()}
    return found


def _once(
    ops: Any, t: Tensors, temperature: float, mask: Tensor | None, grads: tuple[Tensor | None, Tensor | None]
) -> dict[str, Tensor]:
    made = ops.log_prob_entropy(t["logits"], t["index"], temperature, mask)
    saved = made.log_z, made.expected_logit
    gradient = ops.log_prob_entropy_backward(*grads, t["logits"], t["index"], *saved, temperature, mask)
    # the entropy is a difference of log_z, of whose digits it has what is left
    return {**made._asdict(), "entropy": made.entropy + made.log_z, "gradient": gradient}
