"""Kernels for mps that look up or write by index: they call torch's own, unless an index is known to be wrong.

Token ids and labels come from a data loader, on the CPU. `remember` looks at them when they are copied to mps, where it
costs no kernel and no wait, and `check` asks for what is known of the memory that an index lies in: of views too, not
of what the GPU has computed. Only where something lies beyond the table does `check` wait for the GPU, to name it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from patcher.engine.ledger import LEDGER, current_machine, original
from patcher.errors import IndexBeyondTable, compose
from patcher.training.rules import torch_before

MOST_ELEMENTS = 2**31
"""In a table with more, torch before 2.14 finds zeros (pytorch issue 188756)."""

_TOKEN = "a token id or another index"
_RESIZE = "model.resize_token_embeddings(len(tokenizer)), or the tokenizer that belongs to the model"
_CLASSES = "num_labels of the model as large as the labels of the data set, or resize_token_embeddings(len(tokenizer))"
_INDEX = "indices within the tensor"

MOST_KNOWN = 2**20
"""More indices than this are not looked at: it would take the CPU longer than a millisecond."""

MOST_KEPT = 2**18
"""More numbers than this (2 MiB) are not kept."""

MOST_COPIES = 64
"""How many copies are remembered; the oldest is forgotten first."""

Bag = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Known:
    """The range of what was copied into one storage on mps.

    Attributes:
        storage: keeps the storage's address from being used again.
        lowest: the smallest number.
        highest: the largest.
        above: the smallest that is not ``lowest``, where there is one.
        below: the largest that is not ``highest``, where there is one.
        numbers: all of them on the CPU, with the copy's strides; None where they are more than `MOST_KEPT`.
        version: of the copy: another one says that it has been written to since.
        right: views of the storage that have been looked at since, and hold nothing wrong, with what was asked.
    """

    storage: StorageWeakRef
    lowest: int
    highest: int
    above: int
    below: int
    numbers: Tensor | None
    version: int
    right: set[Any] = field(default_factory=set)

    def fits(self, lowest: int, size: int, ignored: int | None) -> bool:
        """Whether all numbers lie in ``lowest`` to ``size - 1``, or are ``ignored``."""
        low = self.above if self.lowest == ignored else self.lowest
        high = self.below if self.highest == ignored else self.highest
        return (lowest <= low and high < size) or self.lowest == self.highest == ignored


class _Copies(OrderedDict[int, Known]):
    """What is known, by the address of the storage; undo forgets it."""


def remember(source: Any, copied: Any) -> None:
    """Looks at integers that have just been copied from the CPU to mps; does nothing for other tensors."""
    if copied is source or not (_has_numbers(source) and _has_numbers(copied)) or _is_watched():
        return
    if source.device.type != "cpu" or copied.device.type != "mps" or not 0 < source.numel() <= MOST_KNOWN:
        return
    lowest, highest = source.aminmax()
    above = source.masked_fill(source == lowest, highest).amin()
    below = source.masked_fill(source == highest, lowest).amax()
    storage = copied.untyped_storage()
    known = LEDGER.memory(_Copies)
    reference: Any = StorageWeakRef
    kept = source.numel() <= MOST_KEPT and not copied.is_inference()
    numbers = torch.empty_strided(copied.shape, copied.stride(), dtype=torch.int64).copy_(source) if kept else None
    ranges = int(lowest), int(highest), int(above), int(below)
    known[storage._cdata] = Known(reference(storage), *ranges, numbers, copied._version if kept else 0)
    if len(known) > MOST_COPIES:
        known.popitem(last=False)


def on_host(tensor: Tensor) -> Tensor | None:
    """What a tensor on mps holds, on the CPU, where it is a view of a copy that nobody has written to; else None.

    It costs no kernel and no wait. The result is shared and must not be written to.
    """
    known = LEDGER.memory(_Copies).get(tensor.untyped_storage()._cdata)
    if known is None or known.numbers is None or tensor.is_inference() or tensor._version != known.version:
        return None
    return known.numbers.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def _has_numbers(tensor: Any) -> bool:
    """Whether it is a plain int64 tensor with memory of its own: no subclass, not sparse, not one of torch.func's."""
    if type(tensor) is not Tensor or tensor.dtype is not torch.int64 or tensor.layout is not torch.strided:
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def _is_watched() -> bool:
    """Whether operators are recorded, to which those of `remember` do not belong."""
    return torch.compiler.is_compiling() or torch._C._is_tracing() or torch._C._len_torch_dispatch_stack() > 0


def check(index: Tensor, size: int, what: str, cure: str, *, lowest: int = 0, ignored: int | None = None) -> None:
    """Raises IndexBeyondTable where ``index`` is known to hold a number outside ``lowest`` to ``size - 1``.

    Args:
        index: on mps.
        size: of what it looks up in.
        what: an index is, in words.
        cure: what to do about it.
        lowest: the smallest number that is right.
        ignored: a number that is right besides.
    """
    known = LEDGER.memory(_Copies).get(index.untyped_storage()._cdata)
    if known is None or known.fits(lowest, size, ignored):
        return
    asked = (index.storage_offset(), index.shape, index.stride(), lowest, size, ignored)
    if asked in known.right:
        return
    there = index.cpu().flatten()
    wrong = there[(there < lowest) | (there >= size)]
    wrong = wrong if ignored is None else wrong[wrong != ignored]
    if not wrong.numel():
        known.right.add(asked)  # a part without it, or changed since
        return
    raise IndexBeyondTable(
        compose(
            f"{what} lies beyond what it is looked up in: mps would go on with zeros or with other tensors' memory",
            expected=f"{lowest} to {size - 1}",
            found=f"{int(wrong[0])}" + (f", and {len(wrong) - 1} more of {there.numel()}" if len(wrong) > 1 else ""),
            left="nothing was looked up or written",
            run=cure,
        )
    )


def index_select(keys: Any, self: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices ``index`` (n) of ``self`` along ``dim``; tables of more than 2^31 elements in parts."""
    if self.dim() > 0:
        check(index, self.size(dim), _TOKEN, _RESIZE)
    call = partial(original("aten::index_select on MPS").call_boxed, keys)
    if self.numel() > MOST_ELEMENTS and torch_before(current_machine(), 2, 14):
        return _in_parts(call, self, dim % self.dim(), index)
    found: Tensor = call(self, dim, index)
    return found


def _in_parts(call: Any, table: Tensor, dim: int, index: Tensor) -> Tensor:
    """`index_select` by parts of the table that torch's kernel can count."""
    if table.numel() <= MOST_ELEMENTS:
        part: Tensor = call(table, dim, index)
        return part
    if dim > 0:
        return torch.stack([_in_parts(call, row, dim - 1, index) for row in table])
    rows = max(1, MOST_ELEMENTS // (table.numel() // table.size(0)))
    found = table.new_zeros(index.numel(), *table.shape[1:])
    for start in range(0, table.size(0), rows):
        part = table[start : start + rows]
        here = index.reshape(-1) - start
        inside = ((here >= 0) & (here < part.size(0))).view(-1, *(1,) * (table.dim() - 1))
        found = torch.where(inside, call(part, 0, here.clamp(0, part.size(0) - 1)), found)
    return found


def nll_loss_forward(
    keys: Any, self: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """The loss of labels (n) for log-probabilities (n, classes), and the sum of the weights."""
    _check_labels(self, target, ignore_index)
    call = original("aten::nll_loss_forward on MPS").call_boxed
    loss: tuple[Tensor, Tensor] = call(keys, self, target, weight, reduction, ignore_index)
    return loss


def nll_loss2d_forward(
    keys: Any, self: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """`nll_loss_forward` of pictures: labels (n, h, w), log-probabilities (n, classes, h, w)."""
    _check_labels(self, target, ignore_index)
    call = original("aten::nll_loss2d_forward on MPS").call_boxed
    loss: tuple[Tensor, Tensor] = call(keys, self, target, weight, reduction, ignore_index)
    return loss


def _check_labels(scores: Tensor, target: Tensor, ignored: int) -> None:
    if scores.dim() > 0:
        check(target, scores.size(0 if scores.dim() == 1 else 1), "a label", _CLASSES, ignored=ignored)


def index_copy_(keys: Any, self: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """``self[index] = source`` along ``dim``."""
    _check_write(self, dim, index)
    original("aten::index_copy_ on MPS").call_boxed(keys, self, dim, index, source)
    return self


def index_fill__int_Scalar(keys: Any, self: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """``self[index] = value`` along ``dim``; negative indices count from the end."""
    _check_write(self, dim, index, wraps=True)
    original("aten::index_fill_.int_Scalar on MPS").call_boxed(keys, self, dim, index, value)
    return self


def index_fill__int_Tensor(keys: Any, self: Tensor, dim: int, index: Tensor, value: Tensor) -> Tensor:
    """`index_fill__int_Scalar` with a tensor without dimensions for its value."""
    _check_write(self, dim, index, wraps=True)
    original("aten::index_fill_.int_Tensor on MPS").call_boxed(keys, self, dim, index, value)
    return self


def _check_write(tensor: Tensor, dim: int, index: Tensor, *, wraps: bool = False) -> None:
    if tensor.dim() > 0:
        size = tensor.size(dim)
        check(index, size, "an index", _INDEX, lowest=-size if wraps else 0)


def _embedding_bag(
    keys: Any,
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> Bag:
    """Sums, means or maxima of bags of rows of ``weight``, and what their gradient needs."""
    rest = (scale_grad_by_freq, mode, sparse, per_sample_weights, include_last_offset, padding_idx)
    return _bag("aten::_embedding_bag on MPS", keys, weight, indices, offsets, rest)


def _embedding_bag_forward_only(
    keys: Any,
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> Bag:
    """`_embedding_bag` where no gradient is needed."""
    rest = (scale_grad_by_freq, mode, sparse, per_sample_weights, include_last_offset, padding_idx)
    return _bag("aten::_embedding_bag_forward_only on MPS", keys, weight, indices, offsets, rest)


def _bag(kernel: str, keys: Any, weight: Tensor, indices: Tensor, offsets: Tensor, rest: tuple[Any, ...]) -> Bag:
    check(indices, weight.size(0), _TOKEN, _RESIZE)
    bags: Bag = original(kernel).call_boxed(keys, weight, indices, offsets, *rest)
    return bags
