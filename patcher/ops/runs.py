"""Tensors that lie side by side in one storage, as one tensor: what is done to each element of all is one kernel."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def runs(tensors: Iterable[Tensor]) -> list[Tensor]:
    """``tensors``, in which neighbours of one storage and dtype are one flat view; all elements once.

    One that is not contiguous, has no elements or no neighbour stays as it is. Storages come in the order in which
    ``tensors`` has the first of each, wherever they lie, so that what is summed is summed in one order in every run.
    """
    every = list(tensors)
    order: dict[int, int] = {}
    for tensor in every:
        order.setdefault(tensor.untyped_storage().data_ptr(), len(order))
    joined: list[Tensor] = []
    first, last, many = None, 0, False
    for tensor in sorted(every, key=lambda one: (order[one.untyped_storage().data_ptr()], one.storage_offset())):
        place = int(tensor.storage_offset())
        if first is not None and place == last and _follows(first, tensor):
            last, many = last + tensor.numel(), True
            continue
        if first is not None and many:
            joined[-1] = _whole(first, last)
        joined.append(tensor)
        first = tensor if tensor.is_contiguous() and tensor.numel() else None
        last, many = place + tensor.numel(), False
    if first is not None and many:
        joined[-1] = _whole(first, last)
    return joined


def _follows(first: Tensor, tensor: Tensor) -> bool:
    same = tensor.dtype == first.dtype and tensor.device == first.device and tensor.is_contiguous()
    return same and tensor.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()


def _whole(first: Tensor, last: int) -> Tensor:
    return first.as_strided((last - first.storage_offset(),), (1,))
