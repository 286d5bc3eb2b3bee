"""Compiled code that makes tensors on ``"cuda"`` makes them on mps."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution="torch",
    reviewed=">=2.13,<2.14",
    needed_for=None,
    why="torch.compile makes tensors for device='cuda' that do not go together with those on mps",
    until="never: scripts written for CUDA are what this project is for",
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="torch._subclasses.fake_tensor:FakeTensor._normalize_fake_device",
        replacement="patcher.replacements.torch.compiled:_normalize_fake_device",
        expects="(device)",
        upstream="torch 2.13.0 torch/_subclasses/fake_tensor.py: what a traced factory function makes is on its device",
    ),
    _patch(
        target="torch._inductor.utils:decode_device",
        replacement="patcher.replacements.torch.compiled:decode_device",
        expects="(device)",
        upstream="torch 2.13.0 torch/_inductor/lowering.py: a factory's device chooses the code generator",
    ),
)
