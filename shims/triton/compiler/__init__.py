"""What kernels become for arguments of certain types."""

from triton.compiler import errors as errors
from triton.compiler.compiler import CompiledKernel
from triton.compiler.errors import CompilationError

__all__ = ["CompilationError", "CompiledKernel"]
