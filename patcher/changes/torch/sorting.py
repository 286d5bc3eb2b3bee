"""Sorting and unique values are right for large tensors and large integers."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, issues, native
from patcher.engine.model import Kernel

_kernel = partial(Kernel, distribution=DISTRIBUTION, reviewed=REVIEWED, dispatch_key="MPS", wraps=True, needed_for=None)

CHANGES = (
    _kernel(
        op="aten::sort.stable",
        replacement="patcher.replacements.torch.sorting:sort_stable",
        why="along another dimension than the last, columns beyond 2^22 are not sorted",
        upstream=native("aten/src/ATen/native/mps/operations/Sort.mm", "sort_stable_out_mps", issues(183885)),
        until="the oldest torch that is supported has issue 183885 mended",
    ),
    _kernel(
        op="aten::_unique2",
        replacement="patcher.replacements.torch.sorting:_unique2",
        why="the inverse of int64 above 2^24 belongs to other values: it is computed in float32",
        upstream=native("aten/src/ATen/native/mps/operations/Unique.mm", "_unique2_mps", issues(195595)),
        until="issue 195595 is closed",
    ),
)
