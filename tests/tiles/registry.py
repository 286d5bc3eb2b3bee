"""How a case is declared, and what it makes its arguments with."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

EPS16 = 2.0**-10
"""The distance from 1 to the next float16."""
EPSBF = 2.0**-7
"""The distance from 1 to the next bfloat16."""
EPS32 = 2.0**-23
"""The distance from 1 to the next float32."""
EPS64 = 2.0**-52
"""The distance from 1 to the next float64."""

SENTINEL = 77
"""What outputs hold before a kernel writes them: an element that must stay untouched is compared too."""

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = (*INTS, *FLOATS, "bool")


@dataclass(frozen=True)
class Case:
    """One launch, or a few, whose outputs are compared.

    Attributes:
        name: ``file.function``, and ``[parameter]`` for each parameter.
        run: takes a `Make` and the parameter; gives the outputs, or with ``instead`` a pair (found, expected).
        parameters: what ``run`` is called with besides; empty for none.
        rtol: the allowed difference relative to the expected value; 0 with ``atol`` 0 is bit for bit.
        atol: the allowed difference.
        because: where the tolerance comes from.
        instead: why the expected value comes from torch and not from the interpreter.
    """

    name: str
    run: Callable[..., Any]
    parameters: tuple[Any, ...] = ()
    rtol: float = 0.0
    atol: float = 0.0
    because: str = ""
    instead: str = ""


CASES: dict[str, Case] = {}


def case(
    function: Callable[..., Any] | None = None,
    *,
    each: Iterable[Any] = (),
    rtol: float = 0.0,
    atol: float = 0.0,
    because: str = "",
    instead: str = "",
) -> Any:
    """Declares a case, or one for each value of ``each``; see `Case`. A tolerance needs its reason."""
    if bool(because) != (rtol > 0 or atol > 0):
        raise TypeError("a tolerance and its reason come together")

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        name = f"{Path(inspect.getfile(function)).stem}.{function.__name__}"
        values = tuple(each)
        for value in values:
            CASES[f"{name}[{value}]"] = Case(f"{name}[{value}]", function, (value,), rtol, atol, because, instead)
        if not values:
            CASES[name] = Case(name, function, (), rtol, atol, because, instead)
        return function

    return declare if function is None else declare(function)


class Make:
    """Makes arguments; the same ones in every process for a case of the same name."""

    def __init__(self, name: str) -> None:
        self._generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))

    def floats(self, *shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> torch.Tensor:
        """Normally distributed numbers."""
        return (torch.randn(shape, generator=self._generator, dtype=torch.float64) * scale).to(dtype)

    def positive(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Numbers in [0.25, 4.25)."""
        return (torch.rand(shape, generator=self._generator, dtype=torch.float64) * 4 + 0.25).to(dtype)

    def ints(self, *shape: int, low: int = -100, high: int = 100, dtype: torch.dtype = torch.int32) -> torch.Tensor:
        """Whole numbers, low <= n < high."""
        return torch.randint(low, high, shape, generator=self._generator).to(dtype)

    def permutation(self, n: int) -> torch.Tensor:
        """0 to n - 1 in another order, int32."""
        return torch.randperm(n, generator=self._generator).to(torch.int32)

    def values(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        """Numbers that the dtype holds: floats around 0, whole numbers of both signs where there are two, bools."""
        if dtype.is_floating_point:
            return self.floats(count, dtype=dtype, scale=8)
        if dtype == torch.bool:
            return self.ints(count, low=0, high=2, dtype=torch.bool)
        low = -100 if dtype.is_signed else 0
        return self.ints(count, low=low, high=127, dtype=dtype)

    def out(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """An output, full of `SENTINEL`."""
        return torch.full(shape, SENTINEL, dtype=torch.float64).to(dtype)
