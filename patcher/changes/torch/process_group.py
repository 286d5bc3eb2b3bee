"""Process groups: the default is gloo, which works for one process; NCCL and what needs it are refused by name."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_C10D, _DDP = "torch/distributed/distributed_c10d.py", "torch/nn/parallel/distributed.py"
_HERE = "patcher.replacements.torch.process_group"
_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    until="torch.distributed has a backend for mps",
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="torch.distributed:init_process_group",
        replacement=f"{_HERE}:init_process_group",
        expects="(backend=None, init_method=None, timeout=None, world_size=-1, rank=-1, store=None, group_name='', "
        "pg_options=None, device_id=None, _ranks=None, enable_reconfigure=False)",
        may_lack=("enable_reconfigure",),
        why="the original says that NCCL is not built in, which no package mends on a Mac, and by default it makes a "
        "gloo for mps that takes no tensor at all",
        upstream=source(_C10D, "init_process_group"),
    ),
    _patch(
        target="torch.nn.parallel.distributed:DistributedDataParallel.__init__",
        replacement=f"{_HERE}:__init__",
        expects="(self, module, device_ids=None, output_device=None, dim=0, broadcast_buffers=None, init_sync=True, "
        "process_group=None, bucket_cap_mb=None, find_unused_parameters=False, check_reduction=False, "
        "gradient_as_bucket_view=False, static_graph=False, delay_all_reduce_named_params=None, "
        "param_to_hook_all_reduce=None, mixed_precision=None, device_mesh=None, skip_all_reduce_unused_params=False, "
        "bucket_cap_mb_list=None, batched_grad_copy=False, forward_sync_buffers=None, lazy_bucket_allocation=False)",
        may_lack=("lazy_bucket_allocation",),
        why="over a model on mps the original fails in gloo, which says that a tensor has the wrong type",
        upstream=source(_DDP, "DistributedDataParallel.__init__"),
    ),
    *(
        _patch(
            target=f"torch.distributed.distributed_c10d:{name}",
            replacement=f"{_HERE}:{name}",
            expects="(param, param_name)",
            why="torch's fallback copies the result of a collective back to mps before another process has sent its "
            "part, and the numbers are wrong without a word",
            upstream=source(_C10D, name),
        )
        for name in ("_check_single_tensor", "_check_tensor_list")
    ),
    *(
        _patch(
            target=f"torch.distributed:{name}",
            replacement=f"{_HERE}:{name}",
            expects=expects,
            why="for a list of tensors on mps gloo says, in one process too, that they have the wrong type",
            upstream=source(_C10D, name),
        )
        for name, expects in (
            ("all_gather", "(tensor_list, tensor, group=None, async_op=False)"),
            ("gather", "(tensor, gather_list=None, dst=None, group=None, async_op=False, group_dst=None)"),
            ("scatter", "(tensor, scatter_list=None, src=None, group=None, async_op=False, group_src=None)"),
        )
    ),
)
