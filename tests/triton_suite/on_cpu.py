"""What mps lacks for the tests' own code, beside their kernels: torch's operators on fp8, and arrays of fp64.

A test makes the tensors of its kernel, and what they are compared with, with torch and numpy. mps holds and copies fp8
and computes nothing with it, so that torch's operators run on the CPU. fp64 becomes fp32, also where a number changes
with it, which a script is told of as an error: what is compared says whether it matters. A launch gets none of this.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from patcher.errors import Float64OnMps

NO_FP8 = re.compile(r"Trying to convert Float8_\w+ to the MPS backend|_local_scalar_dense_mps\" not implemented")
"""What torch says of fp8 on mps."""


class OnCpu(TorchFunctionMode):
    """Runs again what ``device`` lacks the types for."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """The function's result; raises what it raises for other reasons."""
        kwargs = dict(kwargs or {})
        try:
            return function(*args, **kwargs)
        except Float64OnMps:
            args, kwargs = tree_map_only(np.ndarray, _single, (args, kwargs))
            return function(*args, **kwargs)
        except (TypeError, NotImplementedError) as refused:
            if not NO_FP8.search(str(refused)):
                raise
        args, kwargs = tree_map_only(torch.Tensor, torch.Tensor.cpu, (args, kwargs))
        if "device" in kwargs:
            kwargs["device"] = "cpu"
        return tree_map_only(torch.Tensor, lambda result: result.to(self.device), function(*args, **kwargs))


def _single(array: Any) -> Any:
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(np.float32) if array.dtype == np.float64 else array


def plainly(launch: Callable[..., Any]) -> Callable[..., Any]:
    """A launch outside of the mode: an operator on fp8 in it is an error, as for a user."""

    @functools.wraps(launch)
    def launched(*args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return launch(*args, **kwargs)

    return launched
