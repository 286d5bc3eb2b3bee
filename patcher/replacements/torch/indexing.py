"""Kernels for mps that look up or write by index: they call torch's own, unless an index is known to be wrong.

Token ids and labels come from a data loader, on the CPU. `remember` looks at them when they are copied to mps, where it
costs no kernel and no wait, and `check` asks for what is known of the memory that an index lies in: of views too, not
of what the GPU has computed. Only where something lies beyond the table does `check` wait for the GPU, to name it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
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

MOST_KNOWN = 2**22
"""More indices than this are not looked at: it would take the CPU longer than a millisecond."""

MOST_COPIES = 64
"""How many copies are remembered; the oldest is forgotten first."""

IGNORED = -100
"""The label that torch's losses ignore by default."""

Bag = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Known:
    """The range of what was copied into one storage on mps.

    Attributes:
        storage: keeps the storage's address from being used again.
        lowest: the smallest number, `IGNORED` not counted.
        highest: the largest.
    """

    storage: StorageWeakRef
    lowest: int
    highest: int


class _Copies(OrderedDict[int, Known]):
    """What is known, by the address of the storage; undo forgets it."""


def remember(source: Any, copied: Any) -> None:
    """Looks at integers that have just been copied from the CPU to mps; does nothing for other tensors."""
    if torch.compiler.is_compiling() or copied is source:
        return
    if type(source) is not Tensor or type(copied) is not Tensor or source.dtype is not torch.int64:
        return
    if source.device.type != "cpu" or copied.device.type != "mps" or not 0 < source.numel() <= MOST_KNOWN:
        return
    lowest, highest = (int(bound) for bound in source.aminmax())
    if lowest == IGNORED:
        lowest = int(source.masked_fill(source == IGNORED, 0).min())
    storage = copied.untyped_storage()
    known = LEDGER.memory(_Copies)
    reference: Any = StorageWeakRef
    known[storage._cdata] = Known(reference(storage), lowest, highest)
    if len(known) > MOST_COPIES:
        known.popitem(last=False)


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
    address = index.untyped_storage()._cdata
    known = LEDGER.memory(_Copies).get(address)
    if known is None or (lowest <= known.lowest and known.highest < size):
        return
    wrong = [number for number in index.flatten().tolist() if not lowest <= number < size and number != ignored]
    if not wrong:
        LEDGER.memory(_Copies).pop(address)  # a part without it, or changed since
        return
    raise IndexBeyondTable(
        compose(
            f"{what} lies beyond what it is looked up in: mps would go on with zeros or with other tensors' memory",
            expected=f"{lowest} to {size - 1}",
            found=f"{wrong[0]}" + (f", and {len(wrong) - 1} more of {index.numel()}" if len(wrong) > 1 else ""),
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
