"""One launch with both back ends: whether a shader gives what torch operators give, as far as rounding lets it.

Whole numbers and what nobody writes have to be equal bit for bit. Floating-point numbers may be two steps of their type
apart; where one is farther, the program runs twice more on torch operators with another rounding (`shaken`), and may be
off by `FACTOR` times what that changes among its neighbours in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from functools import partial
from typing import TypeAlias

import torch

from patcher.tiles import on_torch
from patcher.tiles.on_metal import Launcher
from patcher.tiles.on_torch.carriers import SIGNED
from patcher.tiles.program import Program

Tensor: TypeAlias = torch.Tensor
Arguments: TypeAlias = "Items[Tensor | int | float]"
Run: TypeAlias = "Callable[[Arguments], None]"

FACTOR = 16
"""How many times as far as rounding at random takes them numbers may be apart: two runs tell how far that is to within
this, for all but one of some hundreds of numbers that stand alone."""

NEIGHBOURS = 256
"""Numbers in a row of which a spread is taken."""

AT_ONCE = 1 << 22
"""Numbers that are compared at a time."""

COPIES = 4
"""Of each storage that is written: what torch gives, what Metal gives, and twice what another rounding gives."""


class Undecided(Exception):  # noqa: N818 - it is no error
    """There is no room to compare now; a later launch may have it. Nothing ran."""


def first_launch(program: Program, launcher: Launcher, grid: tuple[int, int, int], arguments: Arguments) -> str:
    """Runs a program with torch operators and as a shader; the tensors get the shader's numbers if they are right.

    Args:
        launcher: the shader, which fits ``grid``.

    Returns:
        What is wrong with the shader's numbers; empty where nothing is. Then the tensors have torch's numbers.

    Raises:
        Undecided: there is no room for `COPIES` of what is written.
        KernelFailed: as torch operators do; no tensor has changed.
    """
    written = launcher.written(arguments)
    if COPIES * sum(each.nbytes for each in storages(written).values()) > room():
        raise Undecided(f"there is no room for {COPIES} copies of what it writes")
    wrong, numbers = compared(program, grid, arguments, written, partial(launcher.launch, grid))
    numbers.put_back()
    return wrong


def compared(
    program: Program, grid: tuple[int, int, int], arguments: Arguments, written: Items[Tensor], as_shader: Run
) -> tuple[str, Copy]:
    """What is wrong with what a shader computes, and copies with the numbers that are right.

    Args:
        written: those of the arguments that are written; they stay as they are.
        as_shader: runs the program as a shader, with other tensors in their places.
    """
    device = next((each.device for each in arguments if isinstance(each, Tensor)), torch.device("cpu"))
    right, found = Copy(arguments, written), Copy(arguments, written)
    on_torch.run(program, grid, right.arguments, device)
    as_shader(found.arguments)
    others: list[Copy] = []

    def spread() -> list[Copy]:
        for seed in (1, 2) if not others else ():
            others.append(Copy(arguments, written))
            on_torch.run_shaken(program, grid, others[-1].arguments, device, seed)
        return others

    wrong = difference(found, right, spread)
    return wrong, right if wrong else found


def room() -> int:
    """Bytes that tensors on mps may still take."""
    return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()


def storages(tensors: Items[Tensor]) -> dict[int, Tensor]:
    """The storages in which they are, whole, as bytes, by where they begin."""
    found: dict[int, Tensor] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in found:
            elements = storage.nbytes() // tensor.element_size()
            found[storage.data_ptr()] = tensor.data.as_strided((elements,), (1,), 0).view(torch.uint8)
    return found


class Copy:
    """The arguments of a launch, with copies of all storages that it writes.

    Attributes:
        arguments: as the launch has them.
        written: what is written, as numbers in a row: each copied storage once for each type in which it is passed.
        before: the same numbers of the launch's own tensors.
    """

    def __init__(self, arguments: Arguments, written: Items[Tensor]) -> None:
        self.originals = storages(written)
        self.copies = {place: whole.clone() for place, whole in self.originals.items()}
        self.arguments = [self._moved(each) if isinstance(each, Tensor) else each for each in arguments]
        kinds = {(each.untyped_storage().data_ptr(), each.dtype): None for each in written}
        self.written = [_numbers(self.copies[place], dtype) for place, dtype in kinds]
        self.before = [_numbers(self.originals[place], dtype) for place, dtype in kinds]

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


def _numbers(whole: Tensor, dtype: torch.dtype) -> Tensor:
    return whole[: whole.numel() // dtype.itemsize * dtype.itemsize].view(dtype)


def difference(found: Copy, right: Copy, spread: Callable[[], list[Copy]]) -> str:
    """What two copies differ in beyond rounding; empty where in nothing.

    Args:
        spread: gives what other roundings make of it; asked only where it matters.
    """
    for number, (a, b) in enumerate(zip(found.written, right.written, strict=True)):
        for part in _parts(a.numel()):
            x, y = a[part], b[part]
            if not x.dtype.is_floating_point:
                bits = SIGNED[8 * x.dtype.itemsize]  # mps compares no unsigned numbers of 16 bits and more
                off = x.view(bits) != y.view(bits)
                if bool(off.any()):
                    return f"{int(off.sum())} of {x.numel()} numbers of {x.dtype} are others"
                continue
            apart = _apart(x, y)
            allowed = _steps(y)
            if bool((apart <= allowed).all()):
                continue
            shaken = [other.written[number][part] for other in spread()]
            allowed += FACTOR * _spread(y, shaken) * ~_untouched(y, [right.before[number][part], *shaken])
            off = ~(apart <= allowed)
            if bool(off.any()):
                worst = float((apart / allowed)[off].max())
                return f"{int(off.sum())} of {x.numel()} numbers of {x.dtype} are off, by {worst:.3g} times what may be"
    return ""


def _parts(count: int) -> Iterator[slice]:
    for begin in range(0, count, AT_ONCE):
        yield slice(begin, min(begin + AT_ONCE, count))


def _apart(x: Tensor, y: Tensor) -> Tensor:
    """Distances in fp32: 0 between equal ones and between NaN, infinite where only one is NaN or infinite."""
    same = (x == y) | (torch.isnan(x) & torch.isnan(y))
    distance = (x.float() - y.float()).abs().nan_to_num(float("inf"), posinf=float("inf"))
    return torch.where(same, torch.zeros_like(distance), distance)


def _steps(y: Tensor) -> Tensor:
    """Two steps of the type at each number; among the least numbers, which some GPUs take for 0, all of those."""
    about = torch.finfo(y.dtype)
    least = about.tiny if about.tiny < 1e-30 else 2 * about.eps * about.tiny
    return 2 * about.eps * y.float().abs().nan_to_num(0.0, posinf=0.0) + least


def _untouched(y: Tensor, others: list[Tensor]) -> Tensor:
    """Where all have one number: before the launch and after it, whatever the rounding."""
    return torch.stack([other == y for other in others]).all(0)


def _spread(y: Tensor, others: list[Tensor]) -> Tensor:
    """How far other roundings take each number: the mean among its neighbours that they change."""
    apart = torch.stack([_apart(other, y).nan_to_num(0.0, posinf=0.0) for other in others]).mean(0)
    rows = torch.nn.functional.pad(apart, (0, -len(apart) % NEIGHBOURS)).view(-1, NEIGHBOURS)
    mean = rows.sum(1) / (rows > 0).sum(1).clamp(min=1)
    return mean.repeat_interleave(NEIGHBOURS)[: len(apart)]
