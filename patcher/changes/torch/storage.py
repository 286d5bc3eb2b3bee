"""Storages land on mps where a script names CUDA; so does what ``torch.load(map_location=...)`` makes of them."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import Patch

_patch = partial(
    Patch,
    distribution="torch",
    reviewed=">=2.13,<2.15",
    needed_for=None,
    until="never: scripts written for CUDA are what this project is for",
)

CHANGES = (
    *(
        _patch(
            target=f"torch.storage:_StorageBase.{name}",
            replacement=f"patcher.replacements.torch.storage:{name}",
            expects=expects,
            why="torch.load(file, map_location=lambda storage, location: storage.cuda(0)) asks for a storage on CUDA",
            upstream="torch 2.13.0 torch/storage.py",
        )
        for name, expects in (
            ("cuda", "(self, device=None, non_blocking=False)"),
            ("to", "(self, *, device, non_blocking=False)"),
        )
    ),
    _patch(
        target="torch.storage:UntypedStorage.__new__",
        replacement="patcher.replacements.torch.storage:__new__",
        why="a storage made on CUDA needs CUDA's allocator",
        upstream="torch 2.13.0 torch/csrc/Storage.cpp",
    ),
    _patch(
        target="torch.jit._serialization:validate_map_location",
        replacement="patcher.replacements.torch.storage:validate_map_location",
        expects="(map_location=None)",
        why="torch.jit.load(file, map_location='cuda') is refused without CUDA",
        upstream="torch 2.13.0 torch/jit/_serialization.py",
    ),
)
