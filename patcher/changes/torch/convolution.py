"""Convolutions get the right weight gradient for batches of 65536 and more."""

from __future__ import annotations

from patcher.changes.torch import DISTRIBUTION, REVIEWED, issues, native
from patcher.engine.model import Kernel

CHANGES = (
    Kernel(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        op="aten::convolution_backward",
        dispatch_key="MPS",
        wraps=True,
        needed_for="the gradient of a convolution over more than 65535 samples, which is wrong without a word",
        replacement="patcher.replacements.torch.convolution:convolution_backward",
        why="Metal's weight gradient of conv1d and conv2d counts samples with 16 bits: those beyond 65535 are left out",
        upstream=native(
            "aten/src/ATen/native/mps/operations/Convolution.mm",
            "mps_convolution_backward_weights",
            issues(96225, 193577),
        ),
        until="the oldest torch that is supported has pull request 193577",
    ),
)
