"""What the two processes write into their files."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from tests.census.arguments import Packed


@dataclass
class Launch:
    """One launch of a kernel.

    Attributes:
        kernel: see `upstream.name_of`.
        grid: three extents.
        before: the arguments as they were.
        after: their tensors after a run with torch operators.
        metal: the same after a run as a Metal shader; None where it has none.
        why: why it has none.
    """

    kernel: str
    grid: tuple[int, int, int]
    before: Packed
    after: list[torch.Tensor] = field(default_factory=list)
    metal: list[torch.Tensor] | None = None
    why: str = ""


@dataclass
class Record:
    """What a call did.

    Attributes:
        launches: those that ran, in order.
        error: the traceback of one that raised.
        compiled: kernels and device functions of which a program was made here first, by name.
        refused: those that the front end read until it refused one.
    """

    launches: list[Launch] = field(default_factory=list)
    error: str = ""
    compiled: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Compared:
    """Attributes:
    kernel: see `upstream.name_of`.
    torch, metal: what is wrong; empty where all agrees.
    ran_as_metal: whether it did.
    why: why not.
    worst: the largest difference, as a part of what is allowed.
    """

    kernel: str
    torch: str
    metal: str
    ran_as_metal: bool
    why: str
    worst: float
