"""``"cuda"`` as a device in the user's code lands on mps, and says so once."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import Kernel, Patch

_DISTRIBUTION = "torch"
_REVIEWED = ">=2.13,<2.15"
_WHY = "a CUDA script names its device: .to('cuda'), device='cuda:0', autocast('cuda')"
_UNTIL = "never: scripts written for CUDA are what this project is for"
_kernel = partial(
    Kernel,
    distribution=_DISTRIBUTION,
    reviewed=_REVIEWED,
    needed_for=None,
    why=_WHY,
    until=_UNTIL,
    dispatch_key="CUDA",
)
_patch = partial(Patch, distribution=_DISTRIBUTION, reviewed=_REVIEWED, why=_WHY, until=_UNTIL)
_COPIES = "copies with non_blocking=True, which may read memory that has been freed or changed"
_FACTORIES = ("empty.memory_format", "empty_strided", "tril_indices", "triu_indices")

CHANGES = (
    *(
        _kernel(
            op=f"aten::{name}",
            replacement=f"patcher.replacements.torch.cuda_device:{name.partition('.')[0]}",
            upstream="torch 2.13.0 native_functions.yaml: every other factory and copy calls these",
        )
        for name in _FACTORIES
    ),
    *(
        _patch(
            target=target,
            replacement=f"patcher.replacements.torch.cuda_device:{name}",
            expects=expects,
            needed_for=needed_for,
            upstream="torch 2.13.0 ATen/native/TensorConversions.cpp: ensure_has_index asks the device guard of cuda; "
            "pytorch issues 139550 and 189690: a non_blocking copy reads its source too late, so to and cuda wait",
        )
        for target, name, expects, needed_for in (
            ("torch:Tensor.to", "to", None, _COPIES),
            ("torch:Tensor.cuda", "cuda", None, _COPIES),
            ("torch:tensor", "tensor", None, None),
            ("torch:as_tensor", "as_tensor", None, None),
        )
    ),
    Patch(
        distribution=_DISTRIBUTION,
        reviewed=_REVIEWED,
        target="torch:Tensor.copy_",
        replacement="patcher.replacements.torch.cuda_device:copy_",
        needed_for=_COPIES,
        why="a non_blocking copy from the CPU to mps reads its source when it may have been freed or changed",
        upstream="pytorch issues 139550 and 189690",
        until="both are closed",
    ),
    _patch(
        target="torch.amp.autocast_mode:autocast.__init__",
        needed_for="autocast('cuda') to do anything: it is switched off without a word",
        replacement="patcher.replacements.torch.cuda_device:autocast_init",
        expects="(self, device_type, dtype=None, enabled=True, cache_enabled=None)",
        upstream="torch 2.13.0 torch/amp/autocast_mode.py: autocast('cuda') is switched off without CUDA",
    ),
    _patch(
        target="torch.amp.grad_scaler:GradScaler.__init__",
        needed_for="fp16 gradients to be scaled: GradScaler('cuda') is switched off without a word",
        replacement="patcher.replacements.torch.cuda_device:grad_scaler_init",
        expects="(self, device='cuda', init_scale=1.0, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000, "
        "enabled=True)",
        upstream="torch 2.13.0 torch/amp/grad_scaler.py: without CUDA GradScaler('cuda') is switched off",
    ),
    _patch(
        target="torch.serialization:_get_restore_location",
        needed_for=None,
        replacement="patcher.replacements.torch.cuda_device:_get_restore_location",
        expects="(map_location)",
        upstream="torch 2.13.0 torch/serialization.py: map_location='cuda' and files saved on CUDA are refused",
    ),
)
