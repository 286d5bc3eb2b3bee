"""Tensors are put together rightly whatever their size."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, issues, native
from patcher.engine.model import Kernel

_kernel = partial(
    Kernel,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    dispatch_key="MPS",
    wraps=True,
    needed_for="concatenations of more than 2^31 elements, which are wrong without a word",
    why="torch's kernel counts elements with 32 bits: beyond 2^31 the result is not written, and other tensors are",
    upstream=native("aten/src/ATen/native/mps/operations/Shape.mm", "cat_out_mps", issues(189960, 189965)),
    until="the oldest torch that is supported has pull request 189965",
)

CHANGES = (
    _kernel(op="aten::cat", replacement="patcher.replacements.torch.concatenation:cat"),
    _kernel(op="aten::cat.out", replacement="patcher.replacements.torch.concatenation:cat_out"),
)
