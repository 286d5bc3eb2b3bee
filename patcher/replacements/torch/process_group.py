"""``torch.distributed`` on a machine without NCCL: gloo, whose collectives reach tensors on mps through the CPU.

torch's fallback (ATen/native/CPUFallback.cpp) copies what an operator has changed back to mps when the operator
returns; a collective returns before it is done. One process has nothing to wait for.
"""

from __future__ import annotations

from typing import Any

import torch

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
    """As torch's, with gloo for the default, which is for a GPU; raises NotOnMac for NCCL."""
    if backend is not None and "nccl" in str(backend).lower():
        raise NotOnMac(
            compose(
                f"init_process_group({backend!r}): NCCL is CUDA's, and torch has no collectives for mps",
                left="no process group was made",
                run="leave init_process_group and DistributedDataParallel out and start one process with `python "
                'script.py`; "gloo" makes a group whose collectives take tensors on the CPU',
            )
        )
    if backend is None and (device_id is None or torch.device(device_id).type != "cpu"):
        backend, device_id = "gloo", None
    original("torch.distributed:init_process_group")(
        backend, init_method, timeout, world_size, rank, store, group_name, pg_options, device_id, _ranks
    )


def __init__(  # noqa: N807 - it replaces a class's
    self: Any,
    module: torch.nn.Module,
    device_ids: Any = None,
    output_device: Any = None,
    dim: int = 0,
    broadcast_buffers: Any = None,
    init_sync: bool = True,
    process_group: Any = None,
    bucket_cap_mb: Any = None,
    find_unused_parameters: bool = False,
    check_reduction: bool = False,
    gradient_as_bucket_view: bool = False,
    static_graph: bool = False,
    delay_all_reduce_named_params: Any = None,
    param_to_hook_all_reduce: Any = None,
    mixed_precision: Any = None,
    device_mesh: Any = None,
    skip_all_reduce_unused_params: bool = False,
    bucket_cap_mb_list: Any = None,
    batched_grad_copy: bool = False,
    forward_sync_buffers: bool | None = None,
) -> None:
    """As torch's; raises NotOnMac for a module on mps."""
    options = {name: value for name, value in locals().items() if name not in ("self", "module")}
    if any(parameter.device.type == "mps" for parameter in module.parameters()):
        raise NotOnMac(
            compose(
                f"DistributedDataParallel({type(module).__name__}): torch has no collectives for mps",
                expected="the module itself, which it is for one process: leave DistributedDataParallel out "
                "(model.module is then model)",
                left="the module is as it was",
            )
        )
    original("torch.nn.parallel.distributed:DistributedDataParallel.__init__")(self, module, **options)


def _check_single_tensor(param: Any, param_name: str) -> None:
    """As torch's; raises NotOnMac for a tensor on mps among several processes."""
    original("torch.distributed.distributed_c10d:_check_single_tensor")(param, param_name)
    _refuse_among_several(param_name, param)


def _check_tensor_list(param: Any, param_name: str) -> None:
    """As torch's; raises NotOnMac for tensors on mps among several processes."""
    original("torch.distributed.distributed_c10d:_check_tensor_list")(param, param_name)
    _refuse_among_several(param_name, *param)


def _refuse_among_several(name: str, *tensors: torch.Tensor) -> None:
    if any(tensor.device.type == "mps" for tensor in tensors) and torch.distributed.get_world_size() > 1:
        raise NotOnMac(
            compose(
                f"a collective takes {name} on mps: torch has none for mps",
                expected=f"{name} on the CPU (x.cpu()), and the result back with .to('mps')",
                left="nothing was sent",
                run="or start one process with `python script.py`: a Mac has one GPU",
            )
        )
