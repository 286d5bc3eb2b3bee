"""The tensors that a launch writes, copied, so that it can run several times and none of them changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import torch

from patcher.tiles.on_torch.carriers import SIGNED, storage_bytes

Tensor: TypeAlias = torch.Tensor
Arguments: TypeAlias = "Items[Tensor | int | float]"

AT_ONCE = 1 << 22
"""Numbers that are looked at at a time."""

MARGIN = 1 << 16
"""Bytes on either side of what tensors span that are copied too: what is written there by mistake is noticed."""

ALIGNMENT = 256
"""Bytes; a multiple of every element's size."""


@dataclass(frozen=True)
class Span:
    """A part of a storage.

    Attributes:
        begin: its first byte in the storage, a multiple of `ALIGNMENT`.
        bytes: what is there.
    """

    begin: int
    bytes: Tensor


class Copy:
    """The arguments of a launch, with copies of what they span of all storages that it writes.

    Args:
        whole: whether storages are copied whole.
        start: what the copies begin with instead of what is there, by where a storage begins.

    Attributes:
        arguments: as the launch has them.
        written: what is written, as numbers in a row: each copied span once for each type in which it is passed.
        before: the same numbers before anything ran.
    """

    def __init__(
        self,
        arguments: Arguments,
        written: Items[Tensor],
        whole: bool = False,
        start: Mapping[int, Tensor] = MappingProxyType({}),
    ) -> None:
        self.spans = spans(arguments, written, whole)
        begin = {**{place: span.bytes for place, span in self.spans.items()}, **start}
        self.copies = {place: found.clone() for place, found in begin.items()}
        self.arguments = [self._moved(each) if isinstance(each, Tensor) else each for each in arguments]
        kinds = {(each.untyped_storage().data_ptr(), each.dtype): None for each in written}
        self.written = [_numbers(self.copies[place], dtype) for place, dtype in kinds]
        self.before = [_numbers(begin[place], dtype) for place, dtype in kinds]

    def _moved(self, tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in self.copies:
            return tensor
        offset = tensor.storage_offset() - self.spans[place].begin // tensor.element_size()
        return _numbers(self.copies[place], tensor.dtype).as_strided(tensor.shape, tensor.stride(), offset)

    def tells(self, reads: bool = True) -> bool:
        """Whether what was written can be right or wrong: it is not one number again and again, as from zeros or NaN.

        Of spans in which nothing has changed nothing is asked; something has to have. A program that ``reads``
        nothing may write one number: where it does is what can be wrong.
        """
        told = [_differ(*both) for both in zip(self.written, self.before, strict=True)]
        return (True in told and False not in told) if reads else any(one is not None for one in told)


def spans(arguments: Arguments, written: Items[Tensor], whole: bool) -> dict[int, Span]:
    """What the arguments span together of each storage that is written, by where the storage begins.

    Args:
        whole: whether it is all of the storage.
    """
    found: dict[int, Span] = {}
    for tensor in written:
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if place in found:
            continue
        everything = storage_bytes(tensor)
        begin, end = (0, size) if whole else _extent(arguments, place)
        begin, end = max(0, begin - MARGIN) // ALIGNMENT * ALIGNMENT, min(size, end + MARGIN)
        found[place] = Span(begin, everything[begin:end])
    return found


def _extent(arguments: Arguments, place: int) -> tuple[int, int]:
    """The first byte of a storage in which an argument lies, and the one after the last."""
    inside = [each for each in arguments if isinstance(each, Tensor) and each.untyped_storage().data_ptr() == place]
    begins = [int(each.storage_offset()) * each.element_size() for each in inside]
    ends = [begin + _spanned(each) * each.element_size() for begin, each in zip(begins, inside, strict=True)]
    return min(begins), max(ends)


def _spanned(tensor: Tensor) -> int:
    """Elements from a tensor's first one to its last one."""
    if not tensor.numel():
        return 0
    return 1 + sum((size - 1) * int(stride) for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def turned(arguments: Arguments, written: Items[Tensor], whole: bool) -> dict[int, Tensor]:
    """Other bits than those of `spans` everywhere, where it does not matter what is in them."""
    flags = {each.untyped_storage().data_ptr() for each in written if each.dtype == torch.bool}
    found = spans(arguments, written, whole)
    return {place: span.bytes ^ (1 if place in flags else 0xFF) for place, span in found.items()}


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
