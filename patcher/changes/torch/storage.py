"""Storages land on mps where a script names CUDA; so does what ``torch.load(map_location=...)`` makes of them."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, native, source
from patcher.engine.model import Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    until="torch itself takes 'cuda' for mps where there is no CUDA",
)

CHANGES = (
    *(
        _patch(
            target=f"torch.storage:_StorageBase.{name}",
            replacement=f"patcher.replacements.torch.storage:{name}",
            expects=expects,
            why="torch.load(file, map_location=lambda storage, location: storage.cuda(0)) asks for a storage on CUDA",
            upstream=source("torch/storage.py", "_StorageBase.cuda"),
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
        upstream=native("torch/csrc/Storage.cpp", "THPStorage_pynew"),
    ),
    _patch(
        target="torch.jit._serialization:validate_map_location",
        replacement="patcher.replacements.torch.storage:validate_map_location",
        expects="(map_location=None)",
        why="torch.jit.load(file, map_location='cuda') is refused without CUDA",
        upstream=source("torch/jit/_serialization.py", "validate_map_location"),
    ),
)
