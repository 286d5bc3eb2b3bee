"""Compiled kernels, of which there are none."""

from triton.compiler.compiler import CompiledKernel

__all__ = ["CompiledKernel"]
