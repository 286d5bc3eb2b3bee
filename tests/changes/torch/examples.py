"""A call of every method of Tensor and C function of torch that the catalogue replaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from patcher.changes.torch import float64

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""The arguments, by position and by keyword."""


def _reduced(name: str) -> Call:
    x = torch.arange(6.0).view(2, 3)
    return (x, *((-1,) if "cum" in name or "softmax" in name else ())), {"dtype": torch.float64}


_SPARSE = {
    "sparse_coo_tensor": ([[0, 1], [1, 0]], [1.0, 2.0], (2, 2)),
    "sparse_compressed_tensor": ([0, 1, 2], [1, 0], [1.0, 2.0], (2, 2)),
    "sparse_csr_tensor": ([0, 1, 2], [1, 0], [1.0, 2.0], (2, 2)),
    "sparse_csc_tensor": ([0, 1, 2], [1, 0], [1.0, 2.0], (2, 2)),
    "sparse_bsr_tensor": ([0, 1], [0], [[[1.0, 2.0], [3.0, 4.0]]], (2, 2)),
    "sparse_bsc_tensor": ([0, 1], [0], [[[1.0, 2.0], [3.0, 4.0]]], (2, 2)),
}


def _sparse(name: str) -> Call:
    layout = {"layout": torch.sparse_csr} if name == "sparse_compressed_tensor" else {}
    return tuple(map(torch.tensor, _SPARSE[name][:-1])) + _SPARSE[name][-1:], {"dtype": torch.float64, **layout}


EXAMPLES: dict[str, Callable[[], Call]] = {
    "torch:Tensor.to": lambda: ((torch.arange(3.0), "cuda"), {"non_blocking": True}),
    "torch:Tensor.cuda": lambda: ((torch.arange(3.0),), {}),
    "torch:Tensor.copy_": lambda: ((torch.zeros(3), torch.arange(3.0), True), {}),
    "torch:Tensor.record_stream": lambda: ((torch.arange(3.0), torch.cuda.current_stream()), {}),
    "torch:Tensor.type": lambda: ((torch.arange(3.0), torch.float64), {}),
    "torch:Tensor.pin_memory": lambda: ((torch.arange(3.0),), {}),
    "torch:Tensor.new_tensor": lambda: ((torch.arange(3.0), [1.0, 2.0]), {"dtype": torch.float64}),
    "torch:tensor": lambda: (([1.0],), {"device": "cuda"}),
    "torch:as_tensor": lambda: (([1.0],), {"device": "cuda"}),
    "torch:asarray": lambda: (([1.0],), {"dtype": torch.float64}),
    "torch:scalar_tensor": lambda: ((1.0,), {"dtype": torch.float64}),
    "torch:full": lambda: (((2, 3), 1.5), {"dtype": torch.float64}),
    "torch:arange": lambda: ((0, 6, 2), {"dtype": torch.float64}),
    "torch:range": lambda: ((0, 6, 2), {"dtype": torch.float64}),
    "torch:linspace": lambda: ((0, 1, 5), {"dtype": torch.float64}),
    "torch:logspace": lambda: ((0, 1, 5), {"dtype": torch.float64}),
    "torch:kaiser_window": lambda: ((5,), {"dtype": torch.float64}),
    "torch:is_autocast_enabled": lambda: (("cpu",), {}),
    "torch:get_autocast_dtype": lambda: (("cpu",), {}),
    "torch:get_autocast_gpu_dtype": lambda: ((), {}),
    "torch:set_autocast_enabled": lambda: (("cpu", False), {}),
    "torch:set_autocast_dtype": lambda: (("cpu", torch.bfloat16), {}),
    "torch:set_autocast_gpu_dtype": lambda: ((torch.float16,), {}),
    **{f"torch:{name}": lambda: ((3,), {"dtype": torch.float64}) for name in float64.FACTORIES},
    **{f"torch:{name}": lambda: ((torch.zeros(2, 3),), {"dtype": torch.float64}) for name in float64.LIKE},
    **{f"torch:{name}": lambda: ((torch.zeros(2, 3), 1.5), {"dtype": torch.float64}) for name in float64.FILLS},
    **{f"torch:Tensor.{name}": lambda: ((torch.zeros(2), (3,)), {"dtype": torch.float64}) for name in float64.NEW},
    **{f"torch:Tensor.{name}": lambda: ((torch.zeros(2), (3,), 1.5), {}) for name in float64.NEW_FILLS},
    **{f"torch:Tensor.{name}": lambda: ((torch.arange(3.0),), {}) for name in float64.CONVERSIONS},
    **{f"torch.linalg:{name}": lambda: ((torch.eye(2),), {"dtype": torch.float64}) for name in float64.NORMS},
    **{
        f"torch:{owner}{name}": lambda name=name: _reduced(name)
        for name in float64.REDUCTIONS
        for owner in ("", "Tensor.")
    },
    **{f"torch:{name}": lambda name=name: _sparse(name) for name in _SPARSE},
}
"""A target of the catalogue that has none here fails."""

UNINITIALISED = {"torch:empty", "torch:empty_like", "torch:Tensor.new_empty"}
"""Whose numbers are whatever lies in memory."""

NOT_TORCHS = {"torch:Tensor.record_stream"}
"""Whose example torch's own does not take, nor its compiler."""

OF_CUDA = {"torch:Tensor.to", "torch:Tensor.cuda", "torch:tensor", "torch:as_tensor"}
"""Whose example asks for CUDA, which torch's own refuses."""

NOT_COMPILED = {"torch:Tensor.pin_memory", "torch:set_autocast_gpu_dtype", *(f"torch:{name}" for name in _SPARSE)}
"""What torch's own compiler does not take either."""
