"""Streams in a script: the one queue of mps satisfies what a script says about them."""

from __future__ import annotations

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        target="torch:Tensor.record_stream",
        replacement="patcher.replacements.torch.cuda_streams:record_stream",
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        why="a prefetcher hands a stream of torch.cuda to torch, which without CUDA knows none",
        upstream=source("torch/cuda/__init__.py", "set_stream"),
        until="torch.cuda has the one stream of mps where there is no CUDA",
        needed_for=None,
    ),
)
