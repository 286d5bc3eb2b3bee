"""Kernels, their tuning, and the driver that is never there."""

from triton.runtime import autotuner as autotuner
from triton.runtime import jit as jit
from triton.runtime.autotuner import OutOfResources
from triton.runtime.driver import driver

__all__ = ["OutOfResources", "driver"]
