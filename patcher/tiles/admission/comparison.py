"""One launch with both back ends, on copies: whether a shader gives what torch operators give, but for rounding."""

from __future__ import annotations

from collections.abc import Callable, Collection
from collections.abc import Sequence as Items
from functools import partial
from typing import TypeAlias

import torch

from patcher import environment, sizes
from patcher.errors import KernelFailed
from patcher.tiles import on_torch
from patcher.tiles.admission.copies import Arguments, Copy, Tensor, spans, turned
from patcher.tiles.admission.tolerance import Roundings, difference
from patcher.tiles.aliases import aliases_of
from patcher.tiles.on_metal import Launcher
from patcher.tiles.program import Program

Run: TypeAlias = "Callable[[Arguments], None]"

COPIES = 6
"""Of what is written: what is there instead of what is, what torch gives, what Metal gives, three times what another
rounding gives."""


class Undecided(Exception):  # noqa: N818 - it is no error
    """A shader is neither right nor wrong yet, and no tensor has changed; a later launch may tell."""


def first_launch(program: Program, launcher: Launcher, grid: tuple[int, int, int], arguments: Arguments) -> str:
    """Runs a program with torch operators and as a shader; the tensors get the shader's numbers if they are right.

    Args:
        launcher: the shader, which fits ``grid``.

    Returns:
        What is wrong with the shader's numbers; empty where nothing is. Where something is no tensor has changed.

    Raises:
        Undecided: there is no room for `COPIES` of what is written, they tell nothing, or anything that failed.
    """
    try:
        written = launcher.written(arguments)
        check_room(arguments, written, whole=False)
        read = aliases_of(program).read
        fresh = unread(program, arguments, written, read)
        wrong, found = compared(program, grid, arguments, written, partial(launcher.launch, grid), fresh)
        told = bool(wrong) or found.tells(reads=bool(read) or 0 in _numbers(arguments))
    except Undecided:
        raise
    except Exception as error:  # whatever it is, torch operators alone may not meet it
        raise Undecided(f"it could not be compared with torch: {first_line(error)}") from error
    if wrong:
        return wrong
    if not told:
        raise Undecided("what it has written so far is one number again and again, which proves nothing")
    del found
    launcher.launch(grid, arguments)
    return ""


def unread(program: Program, arguments: Arguments, written: Items[Tensor], read: Collection[str]) -> list[Tensor]:
    """Those of ``written`` of which nothing is read before or after: what is in them does not matter.

    Args:
        read: names of the arguments that are read.
    """
    places = {
        argument.untyped_storage().data_ptr()
        for (name, _), argument in zip(program.arguments, arguments, strict=True)
        if isinstance(argument, Tensor) and name in read
    }
    return [each for each in written if each.untyped_storage().data_ptr() not in places]


def _numbers(arguments: Arguments) -> list[int | float]:
    """Those that are numbers. Where one is 0 and makes what is written, a fault may pass as it."""
    return [each for each in arguments if not isinstance(each, Tensor)]


def compared(
    program: Program,
    grid: tuple[int, int, int],
    arguments: Arguments,
    written: Items[Tensor],
    as_shader: Run,
    fresh: Items[Tensor] = (),
) -> tuple[str, Copy]:
    """What is wrong with what a shader computes, and copies with its numbers.

    Args:
        written: those of the arguments that are written; they stay as they are.
        as_shader: runs the program as a shader, with other tensors in their places.
        fresh: those of them that are not read; their copies hold other numbers, so that whatever is written changes.

    Raises:
        Undecided: it is not known what rounding does to the program, as with another one it fails or does not end.
    """
    device = next((each.device for each in arguments if isinstance(each, Tensor)), torch.device("cpu"))
    right, operations, copy = ran_with_torch(program, grid, arguments, written, device, fresh)
    found = copy()
    as_shader(found.arguments)

    def rounded(seed: int, scale: float) -> Copy:
        other = copy()
        try:
            on_torch.run_shaken(program, grid, other.arguments, device, seed, scale, operations)
        except Exception as error:
            raise Undecided(f"it is off, and what rounding does to it cannot be tried: {first_line(error)}") from error
        return other

    return difference(found, right, Roundings(rounded)), found


def ran_with_torch(
    program: Program,
    grid: tuple[int, int, int],
    arguments: Arguments,
    written: Items[Tensor],
    device: torch.device,
    fresh: Items[Tensor],
) -> tuple[Copy, int, Callable[[], Copy]]:
    """What torch operators give, how many ran, and what makes further copies like those that they ran on.

    Whole storages have to be copied where the program reads or writes beside what its tensors span.
    """
    copy = copier(arguments, written, fresh, whole=False)
    right = copy()
    try:
        return right, on_torch.run_counted(program, grid, right.arguments, device), copy
    except KernelFailed:
        if all(span.bytes.nbytes == span.bytes.untyped_storage().nbytes() for span in right.spans.values()):
            raise
    del right, copy
    check_room(arguments, written, whole=True)
    copy = copier(arguments, written, fresh, whole=True)
    right = copy()
    return right, on_torch.run_counted(program, grid, right.arguments, device), copy


def copier(arguments: Arguments, written: Items[Tensor], fresh: Items[Tensor], whole: bool) -> Callable[[], Copy]:
    """What makes copies of the arguments; those of ``fresh`` begin with other numbers, the same ones in each copy."""
    return partial(Copy, arguments, written, whole, turned(arguments, fresh, whole))


def check_room(arguments: Arguments, written: Items[Tensor], whole: bool) -> None:
    """Raises Undecided where there is no room for `COPIES` of what is written."""
    size = sum(span.bytes.nbytes for span in spans(arguments, written, whole).values())
    if COPIES * size > room():
        raise Undecided(f"there is no room for {COPIES} copies of the {sizes.size(size)} that it writes into")


def room() -> int:
    """Bytes that tensors on mps may still take. The allocator gives back what it keeps for later."""
    ratio = environment.ratio(environment.HIGH)
    most = torch.mps.recommended_max_memory() * (min(ratio, 1.0) if ratio else 1.0)
    return int(most) - torch.mps.current_allocated_memory()


def first_line(error: Exception) -> str:
    """What an error says, short."""
    return str(error).partition("\n")[0] or type(error).__name__
