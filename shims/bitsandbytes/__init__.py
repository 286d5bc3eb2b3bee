"""Stands in for bitsandbytes where it is not installed, so that 16-bit training imports and runs without it.

The classes that other libraries test with isinstance are here; making one, or calling a function, raises
`patcher.errors.MissingLibrary`, which says what to install or to use instead. The real library is never shadowed.
"""

from __future__ import annotations

__version__ = "0.50.2+patcher"

from bitsandbytes import functional as functional
from bitsandbytes import nn as nn
from bitsandbytes import optim as optim
from bitsandbytes.functional import matmul_4bit

supported_torch_devices = {"cpu", "mps"}
"""What transformers asks before it quantizes; the error then comes from the layer, and says what to install."""

__all__ = ["matmul_4bit", "supported_torch_devices"]
