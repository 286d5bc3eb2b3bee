"""The tensors that a launch writes, copied, so that it can run several times and none of them changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Items
from types import MappingProxyType
from typing import TypeAlias

import torch

from patcher.tiles.on_torch.carriers import SIGNED

Tensor: TypeAlias = torch.Tensor
Arguments: TypeAlias = "Items[Tensor | int | float]"

AT_ONCE = 1 << 22
"""Numbers that are looked at at a time."""


class Copy:
    """The arguments of a launch, with copies of all storages that it writes.

    Args:
        start: what the copies begin with instead of what is there, by where a storage begins.

    Attributes:
        arguments: as the launch has them.
        written: what is written, as numbers in a row: each copied storage once for each type in which it is passed.
        before: the same numbers before anything ran.
    """

    def __init__(
        self, arguments: Arguments, written: Items[Tensor], start: Mapping[int, Tensor] = MappingProxyType({})
    ) -> None:
        self.originals = storages(written)
        begin = {**self.originals, **start}
        self.copies = {place: whole.clone() for place, whole in begin.items()}
        self.arguments = [self._moved(each) if isinstance(each, Tensor) else each for each in arguments]
        kinds = {(each.untyped_storage().data_ptr(), each.dtype): None for each in written}
        self.written = [_numbers(self.copies[place], dtype) for place, dtype in kinds]
        self.before = [_numbers(begin[place], dtype) for place, dtype in kinds]

    def _moved(self, tensor: Tensor) -> Tensor:
        copy = self.copies.get(tensor.untyped_storage().data_ptr())
        if copy is None:
            return tensor
        return _numbers(copy, tensor.dtype).as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    def put_back(self) -> None:
        """What is in the copies goes into the launch's own tensors."""
        with torch.inference_mode():  # where tensors made in that mode can be written too
            for place, original in self.originals.items():
                original.copy_(self.copies[place])

    def tells(self, reads: bool = True) -> bool:
        """Whether what was written can be right or wrong: it is not one number again and again, as from zeros or NaN.

        Of storages in which nothing has changed nothing is asked; something has to have. A program that ``reads``
        nothing may write one number: where it does is what can be wrong.
        """
        told = [_differ(*both) for both in zip(self.written, self.before, strict=True)]
        return (True in told and False not in told) if reads else any(one is not None for one in told)


def storages(tensors: Items[Tensor]) -> dict[int, Tensor]:
    """The storages in which they are, whole, as bytes, by where they begin."""
    found: dict[int, Tensor] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in found:
            elements = storage.nbytes() // tensor.element_size()
            found[storage.data_ptr()] = tensor.data.as_strided((elements,), (1,), 0).view(torch.uint8)
    return found


def turned(written: Items[Tensor]) -> dict[int, Tensor]:
    """Other bits than theirs everywhere, for storages of which it does not matter what is in them."""
    flags = {each.untyped_storage().data_ptr() for each in written if each.dtype == torch.bool}
    return {place: whole ^ (1 if place in flags else 0xFF) for place, whole in storages(written).items()}


def parts(count: int) -> Iterator[slice]:
    """`AT_ONCE` places after the other."""
    for begin in range(0, count, AT_ONCE):
        yield slice(begin, min(begin + AT_ONCE, count))


def bits(x: Tensor) -> Tensor:
    """Numbers as signed whole numbers of the same bits; mps compares no unsigned ones of 16 bits and more."""
    return x.view(SIGNED[8 * x.dtype.itemsize])


def _numbers(whole: Tensor, dtype: torch.dtype) -> Tensor:
    return whole[: whole.numel() // dtype.itemsize * dtype.itemsize].view(dtype)


def _differ(after: Tensor, before: Tensor) -> bool | None:
    """Whether the finite ones of the numbers that have changed are several, or one that is not 0; None if none has.

    Of yes and no, some have to have changed and others not.
    """
    changed, first = 0, None
    for part in parts(after.numel()):
        new = after[part][bits(after[part]) != bits(before[part])]
        changed += new.numel()
        new = bits(new[torch.isfinite(new)] if new.dtype.is_floating_point else new)
        if not new.numel():
            continue
        first = new[0] if first is None else first
        if bool((new != first).any()):
            return True
    if not changed:
        return None
    if after.dtype == torch.bool:
        return changed < after.numel()
    return changed == 1 and first is not None and bool(first != 0)
