"""``triton.language``: what kernel files read while they are imported. Kernel bodies never run."""

from triton.language import core as core
from triton.language import extra as extra
from triton.language import math as math
from triton.language.core import bfloat16, cast, constexpr, dtype, float16, float32, float64, int64, tensor

__all__ = [
    "bfloat16",
    "cast",
    "constexpr",
    "dtype",
    "float16",
    "float32",
    "float64",
    "int64",
    "tensor",
]
