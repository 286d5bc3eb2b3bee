"""``init_process_group("nccl")`` is an error that names the alternative."""

from __future__ import annotations

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="torch.distributed:init_process_group",
        replacement="patcher.replacements.torch.process_group:init_process_group",
        expects="(backend=None, init_method=None, timeout=None, world_size=-1, rank=-1, store=None, group_name='', "
        "pg_options=None, device_id=None, _ranks=None)",
        needed_for=None,
        why="the original says that NCCL is not built in, which no package mends on a Mac",
        upstream=source("torch/distributed/distributed_c10d.py", "init_process_group"),
        until="torch.distributed has a backend for mps",
    ),
)
