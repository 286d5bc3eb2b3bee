"""The memory of a launch: tensors at addresses, masked reads and writes, and atomic operations in program order.

Every storage that an argument lies in has addresses of its own, 2**40 bytes apart, so that a pointer that leaves its
tensor's storage is noticed, and none meets another by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from patcher.tiles.on_torch.carriers import from_memory, itemsize, stored, to_memory
from patcher.tiles.types import Scalar

SPACING = 40
"""log2 of the bytes between the beginnings of two storages."""


class OutOfBoundsError(Exception):
    """An address that lies in no tensor of the launch."""


class Memory:
    """The storages of the arguments of one launch."""

    def __init__(self) -> None:
        self.tensors: list[torch.Tensor] = []
        self.bases: dict[tuple[int, int], int] = {}

    def address(self, tensor: torch.Tensor) -> int:
        """The address of a tensor's first element."""
        storage = tensor.untyped_storage()
        key = (storage.data_ptr(), storage.nbytes()) if storage.nbytes() else (id(tensor), 0)
        if key not in self.bases:
            self.tensors.append(tensor.data)  # .data: a kernel's writes do not count as autograd's in-place operations
            self.bases[key] = len(self.tensors) << SPACING
        return self.bases[key] + int(tensor.storage_offset()) * tensor.element_size()

    def load(
        self, scalar: Scalar, address: torch.Tensor, valid: torch.Tensor | None, other: torch.Tensor | None
    ) -> torch.Tensor:
        """Elements at ``address``, in carried form; where not ``valid`` what ``other`` holds, or 0."""
        shape = _together(address, valid, other)
        empty = from_memory(torch.zeros(1, dtype=stored(scalar), device=address.device), scalar)
        result = (empty if other is None else other).expand(shape)
        for flat, index, hit in self._places(scalar, address.expand(shape), valid):
            read = from_memory(flat[index], scalar)
            result = read if hit is None else torch.where(hit, read, result)
        return result

    def store(self, scalar: Scalar, address: torch.Tensor, value: torch.Tensor, valid: torch.Tensor | None) -> None:
        """Writes carried values where ``valid``."""
        shape = _together(address, value, valid)
        written = to_memory(value, scalar).expand(shape)
        for flat, index, hit in self._places(scalar, address.expand(shape), valid):
            if hit is None:
                flat[index.reshape(-1)] = written.reshape(-1)
            else:
                flat[index[hit]] = written[hit]

    def atomic(
        self,
        scalar: Scalar,
        address: torch.Tensor,
        valid: torch.Tensor | None,
        change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """Changes elements one after the other, in order of programs and of elements.

        Args:
            change: what stands there (carried) and which elements change, as indices into the flattened block, to
                what stands there afterwards.

        Returns:
            What stood there before each change, in carried form; 0 where not ``valid``.
        """
        empty = from_memory(torch.zeros(1, dtype=stored(scalar), device=address.device), scalar)
        before = empty.repeat(address.numel())
        for flat, index, hit in self._places(scalar, address, valid):
            chosen = torch.arange(address.numel(), device=address.device)
            chosen = chosen if hit is None else chosen[hit.reshape(-1)]
            places = index.reshape(-1)[chosen]
            for turn in _turns(places):
                old = from_memory(flat[places[turn]], scalar)
                before[chosen[turn]] = old
                flat[places[turn]] = to_memory(change(old, chosen[turn]), scalar)
        return before.reshape(address.shape)

    def add(self, scalar: Scalar, address: torch.Tensor, value: torch.Tensor, valid: torch.Tensor | None) -> None:
        """Adds carried values where ``valid``, where nobody asks for what stood there before."""
        for flat, index, hit in self._places(scalar, address, valid):
            added = to_memory(value, scalar)
            picked = (index.reshape(-1), added.reshape(-1)) if hit is None else (index[hit], added[hit])
            flat.index_add_(0, *picked)

    def _places(
        self, scalar: Scalar, address: torch.Tensor, valid: torch.Tensor | None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
        """For each storage that is met: its elements, indices into them, and which of the accesses go there.

        Raises:
            OutOfBoundsError: a valid access meets no storage.
        """
        valid = None if valid is None else valid.expand(address.shape)
        met = address if valid is None else address[valid]
        if met.numel() == 0:
            return
        low, high = int(met.min()), int(met.max())
        if low >> SPACING == high >> SPACING:
            yield self._elements(scalar, address, valid, low, high)
            return
        for number in sorted({int(n) for n in torch.unique(met >> SPACING).cpu()}):
            here = (address >> SPACING) == number
            here = here if valid is None else here & valid
            met = address[here]
            yield self._elements(scalar, address, here, int(met.min()), int(met.max()))

    def _elements(
        self, scalar: Scalar, address: torch.Tensor, hit: torch.Tensor | None, low: int, high: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        number, size = low >> SPACING, itemsize(scalar)
        base = number << SPACING
        if not 1 <= number <= len(self.tensors):
            raise OutOfBoundsError("the address is in no tensor that was passed")
        tensor = self.tensors[number - 1]
        room = tensor.untyped_storage().nbytes()
        if high + size > base + room:
            raise OutOfBoundsError(f"byte {high - base} of a tensor's storage that has {room}")
        flat = tensor.as_strided((room // tensor.element_size(),), (1,), 0)
        if flat.dtype != stored(scalar):
            whole = room // size * size
            flat = flat[: whole // flat.element_size()].view(stored(scalar))
        if (low - base) % size:
            raise OutOfBoundsError(f"byte {low - base} is no place for elements of {size} bytes")
        index = (address if hit is None else torch.where(hit, address, torch.full_like(address, low))) - base
        return flat, index // size if size > 1 else index, hit


def _together(*tensors: torch.Tensor | None) -> torch.Size:
    """The shape of blocks that differ at most in the programs' axis."""
    shapes = [tensor.shape for tensor in tensors if tensor is not None]
    return max(shapes, key=lambda shape: shape[0])


def _turns(places: torch.Tensor) -> Iterator[torch.Tensor]:
    """Indices into ``places`` in portions that meet no place twice, keeping the order at every place."""
    ordered, order = torch.sort(places, stable=True)
    _, counts = torch.unique_consecutive(ordered, return_counts=True)
    first = torch.repeat_interleave(torch.cumsum(counts, 0) - counts, counts)
    rank = torch.arange(len(places), device=places.device) - first
    for turn in range(int(counts.max())):
        yield order[rank == turn]
