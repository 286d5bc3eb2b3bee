"""Functions on quantized tensors. Each raises MissingLibrary, except `get_ptr`."""

from __future__ import annotations

import ctypes
from typing import Any, NoReturn

from patcher.errors import MissingLibrary, compose

lib = None
"""The native library; None is how bitsandbytes says that it could not be loaded."""


class QuantState:
    """What is needed to dequantize a tensor. Cannot be made."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise missing("functional.QuantState", QUANTIZED)

    @classmethod
    def from_dict(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises MissingLibrary."""
        raise missing("functional.QuantState.from_dict", QUANTIZED)


def get_ptr(A: Any) -> ctypes.c_void_p | None:
    """The address of a tensor's first element; None for None."""
    return None if A is None else ctypes.c_void_p(A.data_ptr())


def quantize_4bit(*args: Any, **kwargs: Any) -> NoReturn:
    """Raises MissingLibrary."""
    raise missing("functional.quantize_4bit", QUANTIZED)


def dequantize_4bit(*args: Any, **kwargs: Any) -> NoReturn:
    """Raises MissingLibrary."""
    raise missing("functional.dequantize_4bit", QUANTIZED)


def quantize_blockwise(*args: Any, **kwargs: Any) -> NoReturn:
    """Raises MissingLibrary."""
    raise missing("functional.quantize_blockwise", QUANTIZED)


def dequantize_blockwise(*args: Any, **kwargs: Any) -> NoReturn:
    """Raises MissingLibrary."""
    raise missing("functional.dequantize_blockwise", QUANTIZED)


def int8_vectorwise_dequant(*args: Any, **kwargs: Any) -> NoReturn:
    """Raises MissingLibrary."""
    raise missing("functional.int8_vectorwise_dequant", QUANTIZED)


def matmul_4bit(*args: Any, **kwargs: Any) -> NoReturn:
    """Raises MissingLibrary."""
    raise missing("matmul_4bit", QUANTIZED)


QUANTIZED = "pip install bitsandbytes, or load the model in 16 bit: load_in_4bit=False, no quantization_config"
"""What to do instead of quantizing."""


def missing(name: str, run: str) -> MissingLibrary:
    """The error for using ``bitsandbytes.<name>``."""
    return MissingLibrary(
        compose(
            f"bitsandbytes.{name} was used, but bitsandbytes is not installed",
            target=f"bitsandbytes.{name}",
            installed="none (a stand-in of patch-for-mac lets other libraries import)",
            left="nothing was quantized or computed",
            run=run,
        )
    )
