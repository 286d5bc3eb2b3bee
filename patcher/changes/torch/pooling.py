"""Adaptive pooling works for sizes that do not divide each other."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, issues, native
from patcher.engine.model import Kernel

_kernel = partial(Kernel, distribution=DISTRIBUTION, reviewed=REVIEWED, dispatch_key="MPS", wraps=True, needed_for=None)
_average = partial(
    _kernel,
    why="torch's kernel refuses sizes that do not divide each other, where no CPU fallback sees it: segmentation heads "
    "that pool to 1, 2, 3 and 6 do not train",
    upstream=native("aten/src/ATen/native/mps/operations/AdaptivePooling.mm", "set_kernel_params", issues(96056)),
    until="issue 96056 is closed",
)
_largest = partial(
    _kernel,
    why="torch's kernel pools with windows of one size: wrong values, indices and gradients without a word where sizes "
    "do not divide each other, and another shape where the output is larger",
    upstream=native(
        "aten/src/ATen/native/mps/operations/AdaptivePooling.mm", "set_kernel_params", issues(190064, 190065)
    ),
    until="the oldest torch that is supported has pull request 190065",
)
_POOLING = "patcher.replacements.torch.pooling"

CHANGES = (
    _average(op="aten::_adaptive_avg_pool2d", replacement=f"{_POOLING}:_adaptive_avg_pool2d"),
    _average(op="aten::_adaptive_avg_pool2d_backward", replacement=f"{_POOLING}:_adaptive_avg_pool2d_backward"),
    _largest(op="aten::adaptive_max_pool2d", replacement=f"{_POOLING}:adaptive_max_pool2d"),
    _largest(op="aten::adaptive_max_pool2d_backward", replacement=f"{_POOLING}:adaptive_max_pool2d_backward"),
)
