"""What is asked of CUDA's autocast is answered by that of mps.

The state itself stays: torch.compile restores that of one accelerator only when it has traced (torch 2.13.0
_dynamo/output_graph.py), so that CUDA's, set beside that of mps, would be left behind.
"""

from __future__ import annotations

import torch

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
