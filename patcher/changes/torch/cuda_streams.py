"""Streams in a script: the one queue of mps satisfies what a script says about them."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution="torch",
    reviewed=">=2.13,<2.15",
    why="a prefetcher hands a stream of torch.cuda to torch, which without CUDA knows none",
    upstream="torch 2.13.0 torch/csrc/autograd python_variable_methods: record_stream; torch/cuda/__init__.py",
    until="never: scripts written for CUDA are what this project is for",
    needed_for=None,
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(target="torch:Tensor.record_stream", replacement="patcher.replacements.torch.cuda_streams:record_stream"),
    _patch(
        target="torch.cuda:set_stream",
        replacement="patcher.replacements.torch.cuda_streams:set_stream",
        expects="(stream)",
    ),
)
