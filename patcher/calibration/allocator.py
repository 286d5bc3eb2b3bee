"""What torch's mps allocator holds after each step of fixed sequences."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patcher.calibration.sequences import LONGEST, SEQUENCES, length_of
from patcher.calibration.words import said

OUT_OF_MEMORY, TOO_LONG = "out of memory", "too long"
_WORDS = {"out of memory": OUT_OF_MEMORY, "Invalid buffer size": TOO_LONG}
_LITTLE = 64 * 2**20


def cases() -> list[str]:
    """The sequences by name."""
    return list(SEQUENCES)


def run(case: str) -> dict[str, Any]:
    """Carries out the sequence, from an allocator that has not been used.

    Returns:
        ``begin``: bytes that the driver had given before the first step. ``steps``: of each its text, bytes allocated,
        bytes of the driver beyond ``begin``, the recommended maximum, and ``""`` or what was refused. ``texts``: the
        refusals' words. Or ``longest``: the length in bytes from which on Metal takes no buffer.
    """
    if case == LONGEST:
        return {"longest": _longest()}
    begin = torch.mps.driver_allocated_memory()
    live: dict[str, Tensor] = {}
    steps: list[list[Any]] = []
    texts: list[str] = []
    for step in SEQUENCES[case]:
        refusal = _carry_out(step, live)
        texts += [said(refusal)] if refusal else []
        steps.append(
            [
                step,
                torch.mps.current_allocated_memory(),
                torch.mps.driver_allocated_memory() - begin,
                torch.mps.recommended_max_memory(),
                _kind(refusal) if refusal else "",
            ]
        )
    return {"begin": begin, "steps": steps, "texts": texts}


def _carry_out(step: str, live: dict[str, Tensor]) -> RuntimeError | None:
    """Does what the step says with the tensors by name; gives what torch raises for want of memory."""
    name, _, length = step.partition(" = ")
    word, _, argument = step.partition(" ")
    if length:
        try:
            live[name] = _tensor(length_of(length))
        except RuntimeError as error:
            return error
    elif word == "free":
        live.pop(argument, None)  # it may have been refused
    elif word == "empty":
        torch.mps.empty_cache()
    else:
        _allow(length_of(argument))
    return None


def _tensor(length: int) -> Tensor:
    """Bytes that no kernel writes: nothing but the allocator is asked for memory."""
    return torch.empty(length, dtype=torch.uint8, device="mps")


def _allow(length: int) -> None:
    torch.mps.set_per_process_memory_fraction(length / torch.mps.recommended_max_memory())


def _kind(error: RuntimeError) -> str:
    return next((kind for words, kind in _WORDS.items() if words in str(error)), type(error).__name__)


def _longest() -> int:
    """The length of Metal's longest buffer: torch says "Invalid buffer size" from there on.

    With next to no memory allowed, what is shorter is refused too, in other words, so that nothing is allocated.
    """
    _allow(_LITTLE)
    taken, refused = 2 * _LITTLE, 4 * torch.mps.recommended_max_memory()
    while refused - taken > 1:
        middle = (taken + refused) // 2
        if _refusal(middle) == TOO_LONG:
            refused = middle
        else:
            taken = middle
    return refused


def _refusal(length: int) -> str:
    try:
        _tensor(length)
    except RuntimeError as error:
        return _kind(error)
    raise RuntimeError(f"{length} bytes were allocated where {_LITTLE} are allowed")
