"""Metal shaders of ops: an op's source compiled for the types of its tensors, when it is first needed."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FOLDER = Path(__file__).parent

TYPES = {
    torch.float32: "float",
    torch.float16: "half",
    torch.bfloat16: "bfloat",
    torch.int32: "int",
    torch.int64: "long",
    torch.bool: "bool",
}

HELD = 8
"""Elements of a row that a thread holds; as in shared.h."""

LARGEST_GROUP = 1024
"""Threads of a threadgroup, on every Apple GPU."""


@functools.cache
def library(op: str, *types: tuple[str, torch.dtype], given: tuple[tuple[str, int], ...] = ()) -> Any:
    """The kernels of ``op`` as attributes.

    Args:
        types: what the source names the types of its tensors, and what they are.
        given: macros that the source asks for, and what they are.

    Raises:
        SyntaxError: Metal's compiler refuses the source.
        KeyError: there is no such type in Metal.
    """
    names = "".join(f"using {name} = {TYPES[dtype]};\n" for name, dtype in types)
    names += "".join(f"#define {name} {value}\n" for name, value in given)
    shared, own = ((FOLDER / file).read_text() for file in ("shared.h", f"{op}.metal"))
    return torch.mps.compile_shader(shared + names + own)


def rows_of(x: Tensor) -> Tensor:
    """``[rows, columns]`` with the elements of a row side by side; a copy where they are not."""
    return x if x.stride(1) == 1 else x.contiguous()


def group_of(columns: int) -> int:
    """Threads for a row, in whole simdgroups."""
    return min(LARGEST_GROUP, -(-columns // (32 * HELD)) * 32)
