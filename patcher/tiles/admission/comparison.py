"""One launch with both back ends, on copies: whether a shader gives what torch operators give, but for rounding."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items
from functools import partial
from typing import TypeAlias

import torch

from patcher import environment, sizes
from patcher.errors import KernelFailed
from patcher.tiles import on_torch
from patcher.tiles.admission.copies import Arguments, Copy, Tensor, spans
from patcher.tiles.admission.tolerance import Roundings, difference
from patcher.tiles.on_metal import Launcher
from patcher.tiles.program import Program

Run: TypeAlias = "Callable[[Arguments], None]"

COPIES = 5
"""Of what is written: what torch gives, what Metal gives, and three times what another rounding gives."""


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
        wrong, found = compared(program, grid, arguments, written, partial(launcher.launch, grid))
        told = bool(wrong) or found.tells()
    except Undecided:
        raise
    except Exception as error:  # whatever it is, torch operators alone may not meet it
        raise Undecided(f"it could not be compared with torch: {first_line(error)}") from error
    if wrong:
        return wrong
    if not told:
        raise Undecided("what it has written so far is one number again and again, which proves nothing")
    found.put_back()
    return ""


def compared(
    program: Program, grid: tuple[int, int, int], arguments: Arguments, written: Items[Tensor], as_shader: Run
) -> tuple[str, Copy]:
    """What is wrong with what a shader computes, and copies with its numbers.

    Args:
        written: those of the arguments that are written; they stay as they are.
        as_shader: runs the program as a shader, with other tensors in their places.

    Raises:
        Undecided: it is not known what rounding does to the program, as with another one it fails or does not end.
    """
    device = next((each.device for each in arguments if isinstance(each, Tensor)), torch.device("cpu"))
    right, operations, whole = ran_with_torch(program, grid, arguments, written, device)
    found = Copy(arguments, written, whole)
    as_shader(found.arguments)

    def rounded(seed: int, scale: float) -> Copy:
        copy = Copy(arguments, written, whole)
        try:
            on_torch.run_shaken(program, grid, copy.arguments, device, seed, scale, operations)
        except Exception as error:
            raise Undecided(f"it is off, and what rounding does to it cannot be tried: {first_line(error)}") from error
        return copy

    return difference(found, right, Roundings(rounded)), found


def ran_with_torch(
    program: Program, grid: tuple[int, int, int], arguments: Arguments, written: Items[Tensor], device: torch.device
) -> tuple[Copy, int, bool]:
    """What torch operators give, how many ran, and whether whole storages had to be copied for it.

    They have to be where the program reads or writes beside what its tensors span.
    """
    right = Copy(arguments, written)
    try:
        return right, on_torch.run_counted(program, grid, right.arguments, device), False
    except KernelFailed:
        if all(span.bytes.nbytes == span.bytes.untyped_storage().nbytes() for span in right.spans.values()):
            raise
    del right
    check_room(arguments, written, whole=True)
    right = Copy(arguments, written, whole=True)
    return right, on_torch.run_counted(program, grid, right.arguments, device), True


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
