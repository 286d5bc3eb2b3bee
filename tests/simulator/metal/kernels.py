"""The shaders of these tests."""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from patcher.simulator.metal import compile_shader
from patcher.simulator.metal.library import ShaderLibrary

SHADERS = Path(__file__).parent / "shaders"
SMALL_CONSTANTS = {0: 3, 1: True, 20: True}


def source(name: str) -> str:
    """The text of a shader."""
    return (SHADERS / f"{name}.metal").read_text()


@functools.cache
def library(name: str, *, backwards: bool = False) -> ShaderLibrary:
    """A shader, compiled once."""
    return compile_shader(source(name), constants=SMALL_CONSTANTS, backwards=backwards)


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A normal tensor on the device; the same one every time."""
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).to(dtype).to("mps")


def filled(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor that a kernel has to overwrite: every element is 77."""
    return torch.full(shape, 77, dtype=dtype, device="mps")
