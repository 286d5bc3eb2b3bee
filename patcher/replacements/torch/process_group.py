"""``torch.distributed.init_process_group`` on a machine without NCCL."""

from __future__ import annotations

from typing import Any

from patcher.engine.ledger import original
from patcher.errors import NotOnMac, compose


def init_process_group(
    backend: str | None = None,
    init_method: str | None = None,
    timeout: Any = None,
    world_size: int = -1,
    rank: int = -1,
    store: Any = None,
    group_name: str = "",
    pg_options: Any = None,
    device_id: Any = None,
    _ranks: list[int] | None = None,
) -> None:
    """As torch's; raises NotOnMac for NCCL."""
    if backend is not None and "nccl" in str(backend).lower():
        raise NotOnMac(
            compose(
                f"init_process_group({backend!r}): NCCL is CUDA's, and torch has no collectives for mps",
                left="no process group was made",
                run="leave init_process_group and DistributedDataParallel out and start one process with `python "
                'script.py`; "gloo" makes a group whose collectives take tensors on the CPU',
            )
        )
    original("torch.distributed:init_process_group")(
        backend, init_method, timeout, world_size, rank, store, group_name, pg_options, device_id, _ranks
    )
