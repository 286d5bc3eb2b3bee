"""Data parallelism over one GPU: module and batch go to mps, and nothing is split."""

from __future__ import annotations

from typing import Any

import torch

from patcher import environment
from patcher.replacements.torch.cuda_device import MPS

_INIT, _FORWARD = torch.nn.DataParallel.__init__, torch.nn.DataParallel.forward


def data_parallel_init(
    self: Any, module: torch.nn.Module, device_ids: Any = None, output_device: Any = None, dim: int = 0
) -> None:
    """As torch's, and the module goes to mps, as it goes to CUDA with one GPU; not where no GPU is visible."""
    _INIT(self, module, device_ids, output_device, dim)
    if not self.device_ids and not environment.hides_gpus():
        module.to(MPS)


def forward(self: Any, *inputs: Any, **kwargs: Any) -> Any:
    """As torch's, with the tensors of the batch where the module is."""
    if not self.device_ids and any(parameter.is_mps for parameter in self.module.parameters()):
        inputs, kwargs = _on_mps((inputs, kwargs))
    return _FORWARD(self, *inputs, **kwargs)


def data_parallel(
    module: torch.nn.Module,
    inputs: Any,
    device_ids: Any = None,
    output_device: Any = None,
    dim: int = 0,
    module_kwargs: dict[str, Any] | None = None,
) -> Any:
    """What the module makes of the batch on mps."""
    if not isinstance(inputs, tuple):
        inputs = () if inputs is None else (inputs,)
    args, kwargs = _on_mps((inputs, module_kwargs or {}))
    return module(*args, **kwargs)


def _on_mps(batch: Any) -> Any:
    """The batch with its tensors on mps: in what torch scatters (tuples, lists, dictionaries and their subclasses)."""
    if isinstance(batch, torch.Tensor):
        return batch.to(MPS)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(_on_mps, batch))
    if isinstance(batch, dict):
        return type(batch)((name, _on_mps(value)) for name, value in batch.items())
    if isinstance(batch, (tuple, list)):
        return (tuple if isinstance(batch, tuple) else list)(map(_on_mps, batch))
    return batch
