"""The classes that other libraries test layers and weights against. Making one raises MissingLibrary."""

from __future__ import annotations

from typing import Any, NoReturn

import torch

from bitsandbytes.functional import QUANTIZED, missing


class Params4bit(torch.nn.Parameter):
    """A weight in 4 bit."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Params4bit:
        """Raises MissingLibrary."""
        raise missing("nn.Params4bit", QUANTIZED)

    @classmethod
    def from_prequantized(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises MissingLibrary."""
        raise missing("nn.Params4bit.from_prequantized", QUANTIZED)


class Int8Params(torch.nn.Parameter):
    """A weight in 8 bit."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Int8Params:
        """Raises MissingLibrary."""
        raise missing("nn.Int8Params", QUANTIZED)


class Linear4bit(torch.nn.Linear):
    """A linear layer with a weight in 4 bit."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise missing("nn.Linear4bit", QUANTIZED)


class Linear8bitLt(torch.nn.Linear):
    """A linear layer with a weight in 8 bit."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise missing("nn.Linear8bitLt", QUANTIZED)
