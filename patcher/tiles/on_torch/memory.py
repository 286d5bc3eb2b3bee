"""The memory of a launch: tensors at addresses, masked reads and writes, and atomic operations in program order.

Every storage that an argument lies in has addresses of its own, 2**40 bytes apart and above every address of the
machine, so that a pointer that leaves its tensor's storage is noticed, and none meets another by chance. What is
noticed is kept and told when the programs have run: no access waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from patcher.tiles.on_torch.carriers import from_memory, itemsize, storage_bytes, stored, to_memory
from patcher.tiles.on_torch.foreign import tensors_at
from patcher.tiles.program import Operation
from patcher.tiles.types import Scalar

Tensor: TypeAlias = torch.Tensor

SPACING = 40
"""log2 of the bytes between the beginnings of two storages."""

BOTTOM = 1 << 62
"""Where the first of them would begin, if they were not counted from 1."""

NOWHERE = -(1 << 63)
"""An address that no program forms."""


@dataclass(frozen=True)
class Access:
    """What is read or written by an operation, at once.

    Attributes:
        operation: that reads or writes.
        scalar: the type of the elements.
        address: of each, shaped as the block of all programs.
        valid: where the access happens; None for everywhere.
        storages: numbers of the storages that it can meet; None where that is not known.
    """

    operation: Operation
    scalar: Scalar
    address: Tensor
    valid: Tensor | None
    storages: tuple[int, ...] | None

    def shaped(self, *others: Tensor | None) -> Access:
        """With the programs' axis that address, mask and ``others`` have together."""
        shapes = [x.shape for x in (self.address, self.valid, *others) if x is not None]
        shape = tuple(map(max, zip(*shapes, strict=True)))
        valid = None if self.valid is None else self.valid.expand(shape)
        return Access(self.operation, self.scalar, self.address.expand(shape), valid, self.storages)


@dataclass
class Memory:
    """The storages of the arguments of one launch.

    Attributes:
        tensors: one for each storage.
        bases: addresses of the storages' first bytes.
        left: for each operation the greatest address at which it has left the tensors, `NOWHERE` if it has not.
        numbers: of the storages of the arguments, from 1, by their names.
        adopted: addresses of the machine that were met, as those of the launch; as they are where no tensor is there.
        changes: how often something was written.
    """

    tensors: list[Tensor] = field(default_factory=list)
    bases: dict[tuple[int, int], int] = field(default_factory=dict)
    left: dict[Operation, Tensor] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    adopted: dict[int, int] = field(default_factory=dict)
    changes: int = 0

    def passed(self, name: str, tensor: Tensor) -> int:
        """The address of an argument's first element."""
        address = self.address(tensor)
        self.numbers[name] = (address - BOTTOM) >> SPACING
        return address

    def address(self, tensor: Tensor) -> int:
        """The address of a tensor's first element."""
        storage = tensor.untyped_storage()
        key = (storage.data_ptr(), storage.nbytes()) if storage.nbytes() else (id(tensor), 0)
        if key not in self.bases:
            self.tensors.append(tensor.data)  # .data: a kernel's writes do not count as autograd's in-place operations
            self.bases[key] = BOTTOM + (len(self.tensors) << SPACING)
        return self.bases[key] + int(tensor.storage_offset()) * tensor.element_size()

    def adopt(self, address: Tensor) -> Tensor:
        """Addresses, those of the machine among them (``x.data_ptr()``) as those of the launch."""
        different, places = torch.unique(address, return_inverse=True)
        numbers = different.tolist()
        new = [number for number in numbers if 0 < number < BOTTOM and number not in self.adopted]
        found = tensors_at(new, address.device)
        for number in new:
            at = found.get(number)
            self.adopted[number] = number if at is None else self.address(at) + number - int(at.data_ptr())
        moved = [self.adopted.get(number, number) for number in numbers]
        return torch.tensor(moved, dtype=torch.int64, device=address.device)[places]

    def load(self, access: Access, other: Tensor | None) -> Tensor:
        """Elements in carried form; where none is read what ``other`` holds, or 0."""
        access = access.shaped(other)
        empty = from_memory(torch.zeros(1, dtype=stored(access.scalar), device=access.address.device), access.scalar)
        result = (empty if other is None else other).expand(access.address.shape)
        for flat, index, hit in self._places(access):
            read = from_memory(flat[index], access.scalar)
            whole = access.valid is None and access.storages is not None and len(access.storages) == 1
            result = read if whole else torch.where(hit, read, result)
        return result

    def store(self, access: Access, value: Tensor) -> None:
        """Writes carried values; of several for one place the last."""
        access = access.shaped(value)
        self.changes += 1
        written = to_memory(value, access.scalar).expand(access.address.shape).reshape(-1)
        for flat, index, hit in self._places(access):
            _put(flat, index.reshape(-1), written, hit.reshape(-1))

    def atomic(self, access: Access, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Changes elements one after the other, in order of programs and of elements.

        Args:
            change: what stands there (carried) and which elements change, as indices into the flattened block, to
                what stands there afterwards.

        Returns:
            What stood there before each change, in carried form; 0 where none was changed.
        """
        access = access.shaped()
        scalar, address = access.scalar, access.address
        empty = from_memory(torch.zeros(1, dtype=stored(scalar), device=address.device), scalar)
        before = empty.repeat(address.numel())
        for flat, index, hit in self._places(access):
            places = index.reshape(-1)
            for turn in _turns(places, hit.reshape(-1)):
                old = from_memory(flat[places[turn]], scalar)
                before[turn] = old
                new = change(old, turn)
                flat[places[turn]] = to_memory(new, scalar)
                self.changes += not torch.equal(old, new)
        return before.reshape(address.shape)

    def add(self, access: Access, value: Tensor) -> None:
        """Adds carried values, where nobody asks for what stood there before."""
        self.changes += 1
        access = access.shaped(value)
        value = value.expand(access.address.shape)
        for flat, index, hit in self._places(access):
            added = to_memory(value, access.scalar)
            nothing = torch.full_like(added, -0.0 if added.dtype.is_floating_point else 0)  # -0.0 + -0.0 is -0.0
            flat.index_add_(0, index.reshape(-1), torch.where(hit, added, nothing).reshape(-1))

    def strayed(self) -> Iterator[tuple[Operation, str]]:
        """The operations that have left the tensors, in the order in which they first ran, and where they did."""
        furthest = torch.stack(list(self.left.values())).tolist() if self.left else []
        for operation, address in zip(self.left, furthest, strict=True):
            if address != NOWHERE:
                yield operation, self._say(operation, address)

    def _places(self, access: Access) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For each storage that can be met: its elements, indices into them, and which of the accesses go there.

        Where one does not go there its index is that of some other element.
        """
        address, shift = access.address, itemsize(access.scalar).bit_length() - 1
        astray = torch.ones(1, dtype=torch.bool, device=address.device) if access.valid is None else access.valid
        for number in self._met(access):
            flat = _elements(self.tensors[number - 1], access.scalar)
            if not flat.numel():
                continue
            offset = address - (BOTTOM + (number << SPACING))
            index = (offset >> shift).clamp(0, flat.numel() - 1)
            inside = (index << shift) == offset
            astray = astray & ~inside
            yield flat, index, inside if access.valid is None else inside & access.valid
        furthest = torch.where(astray, address, torch.full_like(address, NOWHERE)).amax()
        before = self.left.get(access.operation)
        self.left[access.operation] = furthest if before is None else torch.maximum(before, furthest)

    def _met(self, access: Access) -> Sequence[int]:
        if access.storages is not None:
            return access.storages
        number = (access.address - BOTTOM) >> SPACING
        number = number if access.valid is None else torch.where(access.valid, number, torch.zeros_like(number))
        return [n for n in torch.unique(number).tolist() if 1 <= n <= len(self.tensors)]

    def _say(self, operation: Operation, address: int) -> str:
        number, offset = divmod(address - BOTTOM, 1 << SPACING)
        if not 1 <= number <= len(self.tensors):
            return "the address is in no tensor that was passed"
        room = self.tensors[number - 1].untyped_storage().nbytes()
        size = itemsize(operation.operands[0].scalar.element_ty)  # type: ignore[union-attr]
        if offset + size > room:
            return f"byte {offset} of a tensor's storage that has {room}"
        return f"byte {offset} is no place for elements of {size} bytes"


def _elements(tensor: Tensor, scalar: Scalar) -> Tensor:
    """A tensor's whole storage as elements of ``scalar``."""
    storage = tensor.untyped_storage()
    if storage.nbytes() % tensor.element_size():  # which the elements of another tensor may take to its last byte
        tensor = storage_bytes(tensor)
    flat = tensor.as_strided((storage.nbytes() // tensor.element_size(),), (1,), 0)
    if flat.dtype == stored(scalar):
        return flat
    whole = flat.numel() * flat.element_size() // itemsize(scalar) * itemsize(scalar)
    return flat[: whole // flat.element_size()].view(stored(scalar))


def _put(flat: Tensor, index: Tensor, value: Tensor, hit: Tensor) -> None:
    """``flat[index] = value`` where ``hit``; the others write what the last one that is hit writes, to its place."""
    order = torch.arange(len(index), device=index.device)
    last = torch.where(hit, order, torch.full_like(order, -1)).amax()
    chosen = torch.where(hit, order, last.clamp(min=0))
    value = torch.where(last >= 0, value[chosen], flat[:1])  # nothing is hit: the first element as it is
    flat[torch.where(last >= 0, index[chosen], torch.zeros_like(index))] = value


def _turns(places: Tensor, hit: Tensor) -> Iterator[Tensor]:
    """Indices into ``places`` where ``hit``, in portions that meet no place twice, keeping the order at every place."""
    if len(places) == 1:
        if bool(hit):
            yield torch.zeros_like(places)
        return
    apart = torch.where(hit, places, torch.full_like(places, -1))
    ordered, order = torch.sort(apart, stable=True)
    _, met = torch.unique_consecutive(ordered, return_counts=True)
    first = torch.repeat_interleave(torch.cumsum(met, 0) - met, met)
    rank = torch.arange(len(places), device=places.device) - first + 1
    rank = torch.where(ordered < 0, torch.zeros_like(rank), rank)
    counts = torch.bincount(rank).tolist()
    by_rank = order[torch.sort(rank, stable=True)[1]]
    yield from torch.split(by_rank, counts)[1:]
