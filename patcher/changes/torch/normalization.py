"""Batch normalization of video takes any layout."""

from __future__ import annotations

from patcher.changes.torch import DISTRIBUTION, REVIEWED, issues, native
from patcher.engine.model import Kernel

CHANGES = (
    Kernel(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        op="aten::native_batch_norm",
        dispatch_key="MPS",
        wraps=True,
        needed_for=None,
        replacement="patcher.replacements.torch.normalization:native_batch_norm",
        why="an input of five dimensions with its channels last ends the process",
        upstream=native("aten/src/ATen/native/mps/operations/Normalization.mm", "batch_norm_mps_out", issues(190645)),
        until="the oldest torch that is supported has issue 190645 mended",
    ),
)
