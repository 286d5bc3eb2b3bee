"""``init_process_group("nccl")`` is an error that names the alternative."""

from __future__ import annotations

from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution="torch",
        reviewed=">=2.13,<2.15",
        target="torch.distributed:init_process_group",
        replacement="patcher.replacements.torch.process_group:init_process_group",
        expects="(backend=None, init_method=None, timeout=None, world_size=-1, rank=-1, store=None, group_name='', "
        "pg_options=None, device_id=None, _ranks=None)",
        needed_for=None,
        why="the original says that NCCL is not built in, which no package mends on a Mac",
        upstream="torch 2.13.0 torch/distributed/distributed_c10d.py: init_process_group",
        until="torch has collectives for mps",
    ),
)
