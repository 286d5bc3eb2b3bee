"""What scripts catch where a kernel cannot be compiled: here, where it cannot be read."""

from patcher.errors import KernelNotSupported as CompilationError

__all__ = ["CompilationError"]
