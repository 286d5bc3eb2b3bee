"""``"cuda"`` as a device in the user's code lands on mps, and says so once."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, issues, native, source
from patcher.engine.model import Kernel, Patch

_WHY = "a CUDA script names its device: .to('cuda'), device='cuda:0', autocast('cuda')"
_UNTIL = "torch itself takes 'cuda' for mps where there is no CUDA"
_kernel = partial(
    Kernel,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    why=_WHY,
    until=_UNTIL,
    dispatch_key="CUDA",
)
_patch = partial(Patch, distribution=DISTRIBUTION, reviewed=REVIEWED, why=_WHY, until=_UNTIL)
_COPIES = "copies with non_blocking=True, which may read memory that has been freed or changed"
_FACTORIES = ("empty.memory_format", "empty_strided", "tril_indices", "triu_indices")

CHANGES = (
    *(
        _kernel(
            op=f"aten::{name}",
            replacement=f"patcher.replacements.torch.cuda_device:{name.partition('.')[0]}",
            upstream=source("torchgen/packaged/ATen/native/native_functions.yaml", "empty.memory_format"),
        )
        for name in _FACTORIES
    ),
    *(
        _patch(
            target=target,
            replacement=f"patcher.replacements.torch.cuda_device:{name}",
            expects=expects,
            needed_for=needed_for,
            upstream=native("aten/src/ATen/native/TensorConversions.cpp", "ensure_has_index", issues(139550, 189690)),
        )
        for target, name, expects, needed_for in (
            ("torch:Tensor.to", "to", None, _COPIES),
            ("torch:Tensor.cuda", "cuda", None, _COPIES),
            ("torch:tensor", "tensor", None, None),
            ("torch:as_tensor", "as_tensor", None, None),
        )
    ),
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="torch:Tensor.copy_",
        replacement="patcher.replacements.torch.cuda_device:copy_",
        needed_for=_COPIES,
        why="a non_blocking copy from the CPU to mps reads its source when it may have been freed or changed, and one "
        "into a view of the CPU from a view with the same gaps copies what lies between",
        upstream=native("aten/src/ATen/native/mps/operations/Copy.mm", "mps_copy_", issues(139550, 189690, 189961)),
        until="pytorch issues 139550 and 189690 are closed, and the oldest torch that is supported has 189961 mended",
    ),
    _patch(
        target="torch.amp.autocast_mode:autocast.__init__",
        needed_for="autocast('cuda') to do anything: it is switched off without a word",
        replacement="patcher.replacements.torch.cuda_device:autocast_init",
        expects="(self, device_type, dtype=None, enabled=True, cache_enabled=None)",
        upstream=source("torch/amp/autocast_mode.py", "autocast.__init__"),
    ),
    _patch(
        target="torch.amp.grad_scaler:GradScaler.__init__",
        needed_for="fp16 gradients to be scaled: GradScaler('cuda') is switched off without a word",
        replacement="patcher.replacements.torch.cuda_device:grad_scaler_init",
        expects="(self, device='cuda', init_scale=1.0, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000, "
        "enabled=True)",
        upstream=source("torch/amp/grad_scaler.py", "GradScaler.__init__"),
    ),
    _patch(
        target="torch.serialization:_get_restore_location",
        needed_for=None,
        replacement="patcher.replacements.torch.cuda_device:_get_restore_location",
        expects="(map_location)",
        upstream=source("torch/serialization.py", "_get_restore_location"),
    ),
)
