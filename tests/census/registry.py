"""How a call is declared, and what its arguments are made with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.tiles.registry import Make

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
NARROW = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Call:
    """One way to the kernels.

    Attributes:
        name: ``file.function[dtype]``.
        run: takes a `Make` and the dtype; what it returns is not looked at.
        dtype: that of activations.
        terms: how many terms the longest sum in its kernels has.
        narrow: whether its kernels round to a narrow type in between, and not only what they store.
        raises: what the error says that it must raise; empty for none.
        by_address: whether kernels read tensors by addresses that a tensor holds, which no other process has: then it
            checks their numbers itself.
    """

    name: str
    run: Callable[[Make, torch.dtype], Any]
    dtype: torch.dtype
    terms: int
    narrow: bool
    raises: str
    by_address: bool = False


CALLS: dict[str, Call] = {}


def call(
    *,
    terms: int = 64,
    narrow: bool = False,
    dtypes: Iterable[torch.dtype] = FLOATS,
    raises: str = "",
    by_address: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declares a call for each dtype; see `Call`."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        for dtype in dtypes:
            kind = str(dtype).removeprefix("torch.")
            name = f"{Path(inspect.getfile(function)).stem}.{function.__name__}[{kind}]"
            CALLS[name] = Call(name, function, dtype, terms, narrow, raises, by_address)
        return function

    return declare


def chosen(names: Iterable[str] = ()) -> dict[str, Call]:
    """The calls that are named, by file, function or whole name; ``all``; without names each in one dtype, by turns."""
    wanted = set(names)
    if wanted:
        return {
            name: found
            for name, found in CALLS.items()
            if wanted & {"all", name, name.partition("[")[0], name.partition(".")[0]}
        }
    functions: dict[str, list[str]] = {}
    for name in CALLS:
        functions.setdefault(name.partition("[")[0], []).append(name)
    turns = (variants[turn % len(variants)] for turn, variants in enumerate(functions.values()))
    return {name: CALLS[name] for name in turns}
