"""What is asked of CUDA's autocast is answered by that of mps, and what is set of it is set there.

CUDA's own state stays: torch.compile restores that of one accelerator only when it has traced (torch 2.13.0
_dynamo/output_graph.py), so that CUDA's, set beside that of mps, would be left behind.
"""

from __future__ import annotations

from typing import Any

import torch

_IS_ENABLED, _GET_DTYPE = torch.is_autocast_enabled, torch.get_autocast_dtype
_SET_ENABLED, _SET_DTYPE = torch.set_autocast_enabled, torch.set_autocast_dtype


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether autocast is on for a device; for CUDA, which is meant without one, whether it is on for mps."""
    return _IS_ENABLED("mps" if device_type == "cuda" else device_type)


def get_autocast_dtype(device_type: str) -> torch.dtype:
    """The dtype of a device's autocast; for CUDA that of mps."""
    return _GET_DTYPE("mps" if device_type == "cuda" else device_type)


def get_autocast_gpu_dtype() -> torch.dtype:
    """The dtype of the autocast of mps."""
    return _GET_DTYPE("mps")


def set_autocast_enabled(*args: Any, **kwargs: Any) -> None:
    """As torch, ``([device_type, ]enabled)``; for CUDA, which is meant without a device, the autocast of mps."""
    if len(args) + len(kwargs) == 1:
        _SET_ENABLED("mps", *args, **kwargs)
    else:
        _SET_ENABLED(*_on_mps(args), **_on_mps_by_name(kwargs))


def set_autocast_dtype(*args: Any, **kwargs: Any) -> None:
    """As torch, ``(device_type, dtype)``; for CUDA the dtype of the autocast of mps."""
    _SET_DTYPE(*_on_mps(args), **_on_mps_by_name(kwargs))


def set_autocast_gpu_dtype(dtype: torch.dtype, /) -> None:
    """The dtype of the autocast of mps."""
    _SET_DTYPE("mps", dtype)


def _on_mps(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return ("mps", *args[1:]) if args[:1] == ("cuda",) else args


def _on_mps_by_name(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**kwargs, "device_type": "mps"} if kwargs.get("device_type") == "cuda" else kwargs
