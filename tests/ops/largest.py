"""How large the tensors are that an op makes for a moment."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Largest(TorchDispatchMode):
    """Notes the size of the largest floating-point tensor that any operation returns."""

    elements = 0

    def counts(self, result: Tensor) -> bool:
        return result.is_floating_point()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and self.counts(result):
            self.elements = max(self.elements, result.numel())
        return result


class LargestFloat32(Largest):
    """The same of fp32 tensors only."""

    def counts(self, result: Tensor) -> bool:
        return result.dtype == torch.float32
