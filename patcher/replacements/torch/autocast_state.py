"""What is asked of CUDA's autocast is answered by that of mps.

The state itself stays: torch.compile restores that of one accelerator only when it has traced (torch 2.13.0
_dynamo/output_graph.py), so that CUDA's, set beside that of mps, would be left behind.
"""

from __future__ import annotations

import torch
from torch.jit._builtins import _register_builtin

_IS_ENABLED, _GET_DTYPE = torch.is_autocast_enabled, torch.get_autocast_dtype


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether autocast is on for a device; for CUDA, which is meant without one, whether it is on for mps."""
    return _IS_ENABLED("mps" if device_type == "cuda" else device_type)


def get_autocast_dtype(device_type: str) -> torch.dtype:
    """The dtype of a device's autocast; for CUDA that of mps."""
    return _GET_DTYPE("mps" if device_type == "cuda" else device_type)


def get_autocast_gpu_dtype() -> torch.dtype:
    """The dtype of the autocast of mps."""
    return _GET_DTYPE("mps")


for _function in (is_autocast_enabled, get_autocast_dtype, get_autocast_gpu_dtype):
    # What torch.compiler.assume_constant_result does, without the import of torch._dynamo: the compiler asks while it
    # traces, as it does of the originals, and guards on the state of autocast in any case.
    vars(_function)["_dynamo_marked_constant"] = True

_register_builtin(is_autocast_enabled, "aten::is_autocast_enabled")  # torch.jit.script looks it up by identity
