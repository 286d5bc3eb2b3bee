"""Compiled code that makes tensors on ``"cuda"`` makes them on mps."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    why="torch.compile makes tensors for device='cuda' that do not go together with those on mps",
    until="torch itself takes 'cuda' for mps where there is no CUDA",
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="torch._subclasses.fake_tensor:FakeTensor._normalize_fake_device",
        replacement="patcher.replacements.torch.compiled:_normalize_fake_device",
        expects="(device)",
        upstream=source("torch/_subclasses/fake_tensor.py", "FakeTensor._normalize_fake_device"),
    ),
    _patch(
        target="torch._inductor.utils:decode_device",
        replacement="patcher.replacements.torch.compiled:decode_device",
        expects="(device)",
        upstream=source("torch/_inductor/utils.py", "decode_device"),
    ),
)
