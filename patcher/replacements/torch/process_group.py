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
    enable_reconfigure: bool = False,
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
    since_2_14 = {"enable_reconfigure": True} if enable_reconfigure else {}
    original("torch.distributed:init_process_group")(
        backend, init_method, timeout, world_size, rank, store, group_name, pg_options, device_id, _ranks, **since_2_14
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
    lazy_bucket_allocation: bool = False,
) -> None:
    """As torch's; raises NotOnMac for a module on mps."""
    options = {name: value for name, value in locals().items() if name not in ("self", "module")}
    if not lazy_bucket_allocation:
        del options["lazy_bucket_allocation"]  # which came with torch 2.15
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


def all_gather(tensor_list: list[torch.Tensor], tensor: torch.Tensor, group: Any = None, async_op: bool = False) -> Any:
    """As torch's, for tensors on mps in one process too: torch's fallback does not reach into lists."""
    collective = original("torch.distributed:all_gather")
    if not _alone_on_mps([tensor, *tensor_list], group):
        return collective(tensor_list, tensor, group, async_op)
    copies = [each.cpu() for each in tensor_list]
    return _brought_back(collective(copies, tensor.cpu(), group, async_op), tensor_list, copies)


def gather(
    tensor: torch.Tensor,
    gather_list: list[torch.Tensor] | None = None,
    dst: int | None = None,
    group: Any = None,
    async_op: bool = False,
    group_dst: int | None = None,
) -> Any:
    """As `all_gather`."""
    collective, tensors = original("torch.distributed:gather"), gather_list or []
    if not _alone_on_mps([tensor, *tensors], group):
        return collective(tensor, gather_list, dst, group, async_op, group_dst)
    copies = [each.cpu() for each in tensors]
    return _brought_back(collective(tensor.cpu(), copies, dst, group, async_op, group_dst), tensors, copies)


def scatter(
    tensor: torch.Tensor,
    scatter_list: list[torch.Tensor] | None = None,
    src: int | None = None,
    group: Any = None,
    async_op: bool = False,
    group_src: int | None = None,
) -> Any:
    """As `all_gather`."""
    collective, tensors = original("torch.distributed:scatter"), scatter_list or []
    if not _alone_on_mps([tensor, *tensors], group):
        return collective(tensor, scatter_list, src, group, async_op, group_src)
    copy = tensor.cpu()
    work = collective(copy, [each.cpu() for each in tensors], src, group, async_op, group_src)
    return _brought_back(work, [tensor], [copy])


def _alone_on_mps(tensors: list[Any], group: Any) -> bool:
    on_mps = any(isinstance(each, torch.Tensor) and each.is_mps for each in tensors)
    return on_mps and torch.distributed.get_world_size(group) == 1


def _brought_back(work: Any, tensors: list[torch.Tensor], copies: list[torch.Tensor]) -> Any:
    """Copies the results back to where they were asked for; ``work`` is then done."""
    if work is not None:
        work.wait()
    for tensor, copy in zip(tensors, copies, strict=True):
        tensor.copy_(copy)
    return work


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
