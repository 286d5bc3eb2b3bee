"""What is run: one case of a corpus."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, order=True)
class Case:
    """One thing of torch's in one dtype, and one way in which it is tried.

    Attributes:
        corpus: name of a file of `tests.fidelity.corpora`.
        name: of an operator, a module, an optimizer, as torch's database has it: ``"div.floor_rounding"``. No spaces.
        dtype: e.g. ``"float16"``; ``"-"`` where the case has none.
        test: one of the corpus's tests: ``"forward"``.
    """

    corpus: str
    name: str
    dtype: str
    test: str

    def __str__(self) -> str:
        return f"{self.corpus}: {self.name} {self.test} {self.dtype}"


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
