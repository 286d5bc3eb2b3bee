"""Kernels of matrix products for mps: they call torch's own, on parts that it computes rightly.

Each gets the dispatch keys first. A product that needs no care costs one call of a Python function more.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from patcher.ledger import original
from patcher.ops.split_sum import LONGEST, is_long, split_sum

MOST_ELEMENTS = 2**32
"""A batched product with more in its result or an operand is computed batch by batch (pytorch issue 197636)."""


def mm(keys: Any, self: Tensor, mat2: Tensor) -> Tensor:
    """``self @ mat2``, (m, k) @ (k, n); sums over more than 32766 terms in parts."""
    call = original("aten::mm on MPS").call_boxed
    if self.size(1) > LONGEST and is_long(self.size(0), self.size(1), mat2.size(1)):
        return split_sum(partial(call, keys), self, mat2).to(self.dtype)
    product: Tensor = call(keys, self, mat2)
    return product


def mm_out(keys: Any, self: Tensor, mat2: Tensor, *, out: Tensor) -> Tensor:
    """`mm` into ``out``."""
    if self.size(1) > LONGEST:
        return _into(out, torch.mm(self, mat2))
    original("aten::mm.out on MPS").call_boxed(keys, self, mat2, out=out)
    return out


def addmm(keys: Any, self: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * self + alpha * mat1 @ mat2``."""
    if mat1.size(1) > LONGEST:
        return _added(self, torch.mm(mat1, mat2), beta, alpha)
    call = original("aten::addmm on MPS").call_boxed
    result: Tensor = call(keys, self, mat1, mat2, beta=beta, alpha=alpha)
    return result


def addmm_(keys: Any, self: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """`addmm` into ``self``."""
    if mat1.size(1) > LONGEST:
        return self.copy_(_added(self, torch.mm(mat1, mat2), beta, alpha))
    original("aten::addmm_ on MPS").call_boxed(keys, self, mat1, mat2, beta=beta, alpha=alpha)
    return self


def addmm_out(
    keys: Any, self: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1, out: Tensor
) -> Tensor:
    """`addmm` into ``out``."""
    if mat1.size(1) > LONGEST:
        return _into(out, _added(self, torch.mm(mat1, mat2), beta, alpha))
    original("aten::addmm.out on MPS").call_boxed(keys, self, mat1, mat2, beta=beta, alpha=alpha, out=out)
    return out


def addbmm(keys: Any, self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * self + alpha * sum over the batch of batch1 @ batch2``."""
    if batch1.size(2) > LONGEST:
        return _added(self, torch.bmm(batch1, batch2).sum(0), beta, alpha)
    call = original("aten::addbmm on MPS").call_boxed
    result: Tensor = call(keys, self, batch1, batch2, beta=beta, alpha=alpha)
    return result


def addbmm_(keys: Any, self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """`addbmm` into ``self``."""
    if batch1.size(2) > LONGEST:
        return self.copy_(_added(self, torch.bmm(batch1, batch2).sum(0), beta, alpha))
    original("aten::addbmm_ on MPS").call_boxed(keys, self, batch1, batch2, beta=beta, alpha=alpha)
    return self


def addbmm_out(
    keys: Any, self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1, out: Tensor
) -> Tensor:
    """`addbmm` into ``out``."""
    if batch1.size(2) > LONGEST:
        return _into(out, _added(self, torch.bmm(batch1, batch2).sum(0), beta, alpha))
    original("aten::addbmm.out on MPS").call_boxed(keys, self, batch1, batch2, beta=beta, alpha=alpha, out=out)
    return out


def bmm(keys: Any, self: Tensor, mat2: Tensor) -> Tensor:
    """``self @ mat2``, (b, m, k) @ (b, k, n)."""
    call = partial(original("aten::bmm on MPS").call_boxed, keys)
    if not _needs_care(self, mat2):
        product: Tensor = call(self, mat2)
        return product
    most = _most_batches(self, mat2)
    if most >= self.size(0):
        return split_sum(call, self, mat2).to(self.dtype)
    result = self.new_empty(self.size(0), self.size(1), mat2.size(2))
    for start in range(0, self.size(0), most):
        result[start : start + most].copy_(bmm(keys, self[start : start + most], mat2[start : start + most]))
    return result


def bmm_out(keys: Any, self: Tensor, mat2: Tensor, *, out: Tensor) -> Tensor:
    """`bmm` into ``out``."""
    if _needs_care(self, mat2):
        return _into(out, torch.bmm(self, mat2))
    original("aten::bmm.out on MPS").call_boxed(keys, self, mat2, out=out)
    return out


def baddbmm(keys: Any, self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * self + alpha * batch1 @ batch2``; with ``beta=0`` whatever ``self`` holds is ignored."""
    if beta == 0 or _needs_care(batch1, batch2):
        return _added(self, torch.bmm(batch1, batch2), beta, alpha)
    call = original("aten::baddbmm on MPS").call_boxed
    result: Tensor = call(keys, self, batch1, batch2, beta=beta, alpha=alpha)
    return result


def baddbmm_(keys: Any, self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """`baddbmm` into ``self``."""
    if beta == 0 or _needs_care(batch1, batch2):
        return self.copy_(_added(self, torch.bmm(batch1, batch2), beta, alpha))
    original("aten::baddbmm_ on MPS").call_boxed(keys, self, batch1, batch2, beta=beta, alpha=alpha)
    return self


def baddbmm_out(
    keys: Any, self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1, out: Tensor
) -> Tensor:
    """`baddbmm` into ``out``."""
    if beta == 0 or _needs_care(batch1, batch2):
        return _into(out, _added(self, torch.bmm(batch1, batch2), beta, alpha))
    original("aten::baddbmm.out on MPS").call_boxed(keys, self, batch1, batch2, beta=beta, alpha=alpha, out=out)
    return out


def _needs_care(a: Tensor, b: Tensor) -> bool:
    batch, rows, terms = a.shape
    columns = b.size(2)
    most = max(rows * columns, rows * terms, terms * columns)
    return batch * most > MOST_ELEMENTS or is_long(rows, terms, columns)


def _most_batches(a: Tensor, b: Tensor) -> int:
    """How many matrices one call may take."""
    return max(1, MOST_ELEMENTS // max(a.size(1) * b.size(2), a.size(1) * a.size(2), b.size(1) * b.size(2), 1))


def _added(added: Tensor, product: Tensor, beta: Any, alpha: Any) -> Tensor:
    scaled = product if alpha == 1 else product * alpha
    return scaled if beta == 0 else torch.add(scaled, added, alpha=beta)


def _into(out: Tensor, result: Tensor) -> Tensor:
    if out.shape != result.shape:
        out.resize_(result.shape)
    return out.copy_(result)
