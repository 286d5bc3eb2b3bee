"""float64 becomes float32 on mps, which has none; an error where the numbers would lose their meaning."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, native
from patcher.engine.model import Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    why="numpy and pandas compute in float64, which CUDA takes and mps refuses",
    upstream=native("aten/src/ATen/mps/EmptyTensor.cpp", "empty_mps"),
    until="mps has kernels for float64",
)
REDUCTIONS = ("sum", "nansum", "mean", "prod", "cumsum", "cumprod", "softmax", "log_softmax")
FACTORIES = ("zeros", "ones", "empty", "eye", "rand", "randn")
LIKE = ("zeros_like", "ones_like", "empty_like", "rand_like", "randn_like")
FILLS = ("full_like",)
NEW = ("new_zeros", "new_ones", "new_empty")
NEW_FILLS = ("new_full",)
CONVERSIONS = ("double", "cdouble")
NORMS = ("vector_norm", "matrix_norm", "norm")

CHANGES = (
    *(
        _patch(target=f"torch:{name}", replacement=f"patcher.replacements.torch.float64:functions.{name}")
        for name in (*FACTORIES, *LIKE, *FILLS, *REDUCTIONS)
    ),
    *(
        _patch(target=f"torch:Tensor.{name}", replacement=f"patcher.replacements.torch.float64:methods.{name}")
        for name in (*NEW, *NEW_FILLS, *CONVERSIONS, *REDUCTIONS)
    ),
    *(
        _patch(target=f"torch.linalg:{name}", replacement=f"patcher.replacements.torch.float64:norms.{name}")
        for name in NORMS
    ),
    _patch(
        target="torch._utils:_rebuild_tensor",
        replacement="patcher.replacements.torch.float64:_rebuild_tensor",
        expects="(storage, storage_offset, size, stride)",
    ),
)
