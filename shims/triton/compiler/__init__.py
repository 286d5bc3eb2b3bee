"""Compiled kernels, of which there are none."""

from triton.compiler import errors as errors
from triton.compiler.compiler import CompiledKernel
from triton.compiler.errors import CompilationError

__all__ = ["CompilationError", "CompiledKernel"]
