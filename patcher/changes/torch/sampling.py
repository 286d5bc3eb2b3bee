"""Sampling never draws what has probability 0."""

from __future__ import annotations

from patcher.changes.torch import DISTRIBUTION, REVIEWED, issues, native
from patcher.engine.model import Kernel
from patcher.macs.machine import Machine
from patcher.training.rules import torch_may_be_before


def _never_zero(machine: Machine) -> str | None:
    return None if torch_may_be_before(machine, 2, 14) else "exponential_ of torch 2.14 is never 0"


CHANGES = (
    Kernel(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        op="aten::exponential_",
        dispatch_key="MPS",
        wraps=True,
        needed_for="sampling, which draws tokens of probability 0 now and then, without a word",
        replacement="patcher.replacements.torch.sampling:exponential_",
        skip=_never_zero,
        why="one in 30 million numbers is -0, and multinomial divides by them: 0 / -0 is NaN, which its argmax takes "
        "for the largest, so that a token of probability 0 is drawn",
        upstream=native("aten/src/ATen/native/mps/kernels/Distributions.metal", "exponential", issues(192577, 192621)),
        until="the oldest torch that is supported is 2.14",
    ),
)
