"""Kernels of adaptive pooling for mps: torch's own where it is right, the CPU's where sizes do not divide."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from patcher.engine.ledger import LEDGER, original

_LOGGER = logging.getLogger("patcher")


def _adaptive_avg_pool2d(keys: Any, self: Tensor, output_size: Sequence[int]) -> Tensor:
    """Means over ``output_size`` windows: ``[..., H, W]`` to ``[..., h, w]``."""
    if _divide(self.shape[-2:], output_size) or _divide(output_size, self.shape[-2:]):
        result: Tensor = original("aten::_adaptive_avg_pool2d on MPS").call_boxed(keys, self, output_size)
        return result
    _tell("adaptive_avg_pool2d")
    return torch.ops.aten._adaptive_avg_pool2d(self.cpu(), output_size).to(self.device)  # type: ignore[no-any-return]


def _adaptive_avg_pool2d_backward(keys: Any, grad_output: Tensor, self: Tensor) -> Tensor:
    """The gradient of ``self``."""
    sizes, pooled = self.shape[-2:], grad_output.shape[-2:]
    if _divide(sizes, pooled) or _divide(pooled, sizes):
        result: Tensor = original("aten::_adaptive_avg_pool2d_backward on MPS").call_boxed(keys, grad_output, self)
        return result
    gradient: Tensor = torch.ops.aten._adaptive_avg_pool2d_backward(grad_output.cpu(), self.cpu())
    return gradient.to(self.device)


def adaptive_max_pool2d(keys: Any, self: Tensor, output_size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Maxima over ``output_size`` windows, and the place of each in its plane."""
    if _divide(self.shape[-2:], output_size):
        pair: tuple[Tensor, Tensor] = original("aten::adaptive_max_pool2d on MPS").call_boxed(keys, self, output_size)
        return pair
    _tell("adaptive_max_pool2d")
    values, indices = torch.ops.aten.adaptive_max_pool2d(self.cpu(), output_size)
    return values.to(self.device), indices.to(self.device)


def adaptive_max_pool2d_backward(keys: Any, grad_output: Tensor, self: Tensor, indices: Tensor) -> Tensor:
    """The gradient of ``self``."""
    if _divide(self.shape[-2:], grad_output.shape[-2:]):
        call = original("aten::adaptive_max_pool2d_backward on MPS").call_boxed
        result: Tensor = call(keys, grad_output, self, indices)
        return result
    gradient: Tensor = torch.ops.aten.adaptive_max_pool2d_backward(grad_output.cpu(), self.cpu(), indices.cpu())
    return gradient.to(self.device)


def _divide(sizes: Sequence[int], parts: Sequence[int]) -> bool:
    """Whether each of ``sizes`` is a multiple of its part. An empty or negative part is torch's to refuse."""
    return all(part < 1 or size % part == 0 for size, part in zip(sizes, parts, strict=False))


def _tell(operator: str) -> None:
    if LEDGER.is_news(f"{operator} on the CPU"):
        _LOGGER.warning(
            "patcher: %s runs on the CPU where the sizes do not divide each other: torch's kernel for mps cannot",
            operator,
        )
