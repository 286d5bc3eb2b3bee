"""Kernels of matrix products for mps: they call torch's own, on parts that it computes rightly.

Each gets the dispatch keys first. They step in for operands that torch takes and Metal gets wrong; all others go to
torch's kernel as they are, which raises its own errors, but those that repeat a row are copied out first. A product
that needs no care costs one call of a Python function more. No operator is called that autocast knows: it must not
touch what is in place or has an ``out``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from patcher.engine.ledger import original
from patcher.ops.dense import dense
from patcher.ops.split_sum import FIRST_WRONG, is_long, split_sum

MOST_ELEMENTS = 2**32
"""A batched product with more in its result or an operand is computed batch by batch (pytorch issue 197636)."""


def mm(keys: Any, self: Tensor, mat2: Tensor) -> Tensor:
    """``self @ mat2``, (m, k) @ (k, n); sums over more than 32766 terms in parts."""
    self, mat2 = dense(self), dense(mat2)
    call = original("aten::mm on MPS").call_boxed
    if _is_long(self, mat2, 2):
        return split_sum(partial(call, keys), self, mat2).to(self.dtype)
    product: Tensor = call(keys, self, mat2)
    return product


def mm_out(keys: Any, self: Tensor, mat2: Tensor, *, out: Tensor) -> Tensor:
    """`mm` into ``out``."""
    self, mat2 = dense(self), dense(mat2)
    if _is_long(self, mat2, 2) and _alike(out, self):
        return _into(out, mm(keys, self, mat2))
    original("aten::mm.out on MPS").call_boxed(keys, self, mat2, out=out)
    return out


def addmm(keys: Any, self: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * self + alpha * mat1 @ mat2``."""
    mat1, mat2 = dense(mat1), dense(mat2)
    call = partial(original("aten::addmm on MPS").call_boxed, keys)
    if _is_long(mat1, mat2, 2) and _expands(self, mat1, (mat1.size(0), mat2.size(1))):
        return _added(call, self, mat1, mat2, beta, alpha)
    result: Tensor = call(self, mat1, mat2, beta=beta, alpha=alpha)
    return result


def addmm_(keys: Any, self: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """`addmm` into ``self``."""
    mat1, mat2 = dense(mat1), dense(mat2)
    if _is_long(mat1, mat2, 2) and self.shape == (mat1.size(0), mat2.size(1)):
        return self.copy_(addmm(keys, self, mat1, mat2, beta=beta, alpha=alpha))
    original("aten::addmm_ on MPS").call_boxed(keys, self, mat1, mat2, beta=beta, alpha=alpha)
    return self


def addmm_out(
    keys: Any, self: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1, out: Tensor
) -> Tensor:
    """`addmm` into ``out``."""
    mat1, mat2 = dense(mat1), dense(mat2)
    if _is_long(mat1, mat2, 2) and _alike(out, mat1):
        return _into(out, addmm(keys, self, mat1, mat2, beta=beta, alpha=alpha))
    original("aten::addmm.out on MPS").call_boxed(keys, self, mat1, mat2, beta=beta, alpha=alpha, out=out)
    return out


def addbmm(keys: Any, self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * self + alpha * sum over the batch of batch1 @ batch2``."""
    batch1, batch2 = dense(batch1), dense(batch2)
    call = partial(original("aten::addbmm on MPS").call_boxed, keys)
    if _is_long(batch1, batch2, 3) and _expands(self, batch1, (batch1.size(1), batch2.size(2))):
        return _added(call, self, batch1, batch2, beta, alpha)
    result: Tensor = call(self, batch1, batch2, beta=beta, alpha=alpha)
    return result


def addbmm_(keys: Any, self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """`addbmm` into ``self``."""
    batch1, batch2 = dense(batch1), dense(batch2)
    if _is_long(batch1, batch2, 3) and self.shape == (batch1.size(1), batch2.size(2)):
        return self.copy_(addbmm(keys, self, batch1, batch2, beta=beta, alpha=alpha))
    original("aten::addbmm_ on MPS").call_boxed(keys, self, batch1, batch2, beta=beta, alpha=alpha)
    return self


def addbmm_out(
    keys: Any, self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1, out: Tensor
) -> Tensor:
    """`addbmm` into ``out``."""
    batch1, batch2 = dense(batch1), dense(batch2)
    if _is_long(batch1, batch2, 3) and _alike(out, batch1):
        return _into(out, addbmm(keys, self, batch1, batch2, beta=beta, alpha=alpha))
    original("aten::addbmm.out on MPS").call_boxed(keys, self, batch1, batch2, beta=beta, alpha=alpha, out=out)
    return out


def bmm(keys: Any, self: Tensor, mat2: Tensor) -> Tensor:
    """``self @ mat2``, (b, m, k) @ (b, k, n)."""
    self, mat2 = dense(self), dense(mat2)
    call = partial(original("aten::bmm on MPS").call_boxed, keys)
    if not _needs_care(self, mat2):
        product: Tensor = call(self, mat2)
        return product
    if _is_long(self, mat2, 3):
        return _by_batches(lambda a, b: split_sum(call, a, b).to(a.dtype), self, mat2)
    return _by_batches(call, self, mat2)


def bmm_out(keys: Any, self: Tensor, mat2: Tensor, *, out: Tensor) -> Tensor:
    """`bmm` into ``out``."""
    self, mat2 = dense(self), dense(mat2)
    if _needs_care(self, mat2) and _alike(out, self):
        return _into(out, bmm(keys, self, mat2))
    original("aten::bmm.out on MPS").call_boxed(keys, self, mat2, out=out)
    return out


def baddbmm(keys: Any, self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * self + alpha * batch1 @ batch2``; with ``beta=0`` whatever ``self`` holds is ignored."""
    batch1, batch2 = dense(batch1), dense(batch2)
    if beta == 0:
        self = self.new_zeros(()).expand(self.shape)
    call = partial(original("aten::baddbmm on MPS").call_boxed, keys)
    if not _needs_care(batch1, batch2) or not _expands(self, batch1, _shape(batch1, batch2)):
        result: Tensor = call(self, batch1, batch2, beta=beta, alpha=alpha)
        return result
    self = self.expand(_shape(batch1, batch2))
    if _is_long(batch1, batch2, 3):
        return _by_batches(lambda a, b, added: _added(call, added, a, b, beta, alpha), batch1, batch2, self)
    return _by_batches(lambda a, b, added: call(added, a, b, beta=beta, alpha=alpha), batch1, batch2, self)


def baddbmm_(keys: Any, self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """`baddbmm` into ``self``."""
    batch1, batch2 = dense(batch1), dense(batch2)
    if (beta == 0 or _needs_care(batch1, batch2)) and self.shape == _shape(batch1, batch2):
        return self.copy_(baddbmm(keys, self, batch1, batch2, beta=beta, alpha=alpha))
    original("aten::baddbmm_ on MPS").call_boxed(keys, self, batch1, batch2, beta=beta, alpha=alpha)
    return self


def baddbmm_out(
    keys: Any, self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1, out: Tensor
) -> Tensor:
    """`baddbmm` into ``out``."""
    batch1, batch2 = dense(batch1), dense(batch2)
    if (beta == 0 or _needs_care(batch1, batch2)) and _alike(out, batch1):
        return _into(out, baddbmm(keys, self, batch1, batch2, beta=beta, alpha=alpha))
    original("aten::baddbmm.out on MPS").call_boxed(keys, self, batch1, batch2, beta=beta, alpha=alpha, out=out)
    return out


def _is_long(a: Tensor, b: Tensor, dims: int) -> bool:
    """Whether ``a @ b`` must be split, and is a product that torch takes."""
    if a.dim() != dims or a.size(-1) < FIRST_WRONG or not _fit(a, b):
        return False
    return is_long(a.size(-2), a.size(-1), b.size(-1))


def _needs_care(a: Tensor, b: Tensor) -> bool:
    """Whether a batched product is long or too large, and one that torch takes."""
    if not a.dim() == b.dim() == 3:
        return False
    batch, rows, terms = a.shape
    columns = b.size(2)
    large = batch * max(rows * columns, rows * terms, terms * columns) > MOST_ELEMENTS
    return (large or is_long(rows, terms, columns)) and _fit(a, b)


def _fit(a: Tensor, b: Tensor) -> bool:
    """Whether torch multiplies two tensors. Integers are left to it: their kernel is not Apple's."""
    shapes_fit = a.dim() == b.dim() and a.size(-1) == b.size(-2) and a.shape[:-2] == b.shape[:-2]
    return shapes_fit and _alike(a, b) and (a.is_floating_point() or a.is_complex())


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.dtype is b.dtype and a.device == b.device


def _expands(added: Tensor, like: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether torch adds ``added`` to a product of ``shape``."""
    sizes = zip(reversed(added.shape), reversed(shape), strict=False)
    return _alike(added, like) and added.dim() <= len(shape) and all(size in (1, whole) for size, whole in sizes)


def _shape(a: Tensor, b: Tensor) -> tuple[int, ...]:
    return (*a.shape[:-1], *b.shape[-1:])


def _added(call: Callable[..., Tensor], added: Tensor, a: Tensor, b: Tensor, beta: Any, alpha: Any) -> Tensor:
    """Torch's kernel scales each part before it rounds it; what is added comes to the sum, before that is rounded."""
    batch = a.shape[:-2] if added.dim() == 3 else ()
    nothing = a.new_zeros(()).expand(*batch, a.size(-2), b.size(-1))
    total = split_sum(lambda x, y: call(nothing, x, y, beta=0, alpha=alpha), a, b)
    return (total if beta == 0 else total.add_(added, alpha=beta)).to(a.dtype)


def _by_batches(compute: Callable[..., Tensor], a: Tensor, b: Tensor, *others: Tensor) -> Tensor:
    """``compute(a, b, *others)``, on as many matrices at a time as one call may take."""
    most = max(1, MOST_ELEMENTS // max(a.size(1) * a.size(2), b.size(1) * b.size(2), a.size(1) * b.size(2)))
    if most >= a.size(0):
        return compute(a, b, *others)
    result = a.new_empty(_shape(a, b))
    for start in range(0, a.size(0), most):
        result[start : start + most].copy_(compute(*(part[start : start + most] for part in (a, b, *others))))
    return result


def _into(out: Tensor, result: Tensor) -> Tensor:
    if out.shape != result.shape:
        out.resize_(result.shape)
    return out.copy_(result)
