"""Tensor descriptors made outside of a kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class TensorDescriptor:
    """A tensor that a kernel reads and writes in blocks; what lies outside is padding, and is not written.

    Attributes:
        base: the tensor.
        shape: its extents.
        strides: its strides in elements; the last is 1.
        block_shape: the extents of a block.
        padding: what is read outside, "zero" or "nan".
    """

    base: Any
    shape: list[int]
    strides: list[int]
    block_shape: list[int]
    padding: str = "zero"

    @staticmethod
    def from_tensor(tensor: Any, block_shape: list[int], padding: str = "zero") -> TensorDescriptor:
        """A descriptor of a whole tensor."""
        return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), block_shape, padding)
