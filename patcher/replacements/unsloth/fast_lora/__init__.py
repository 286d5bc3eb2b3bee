"""The autograd functions of ``unsloth.kernels.fast_lora``: adapters are cast once, and computed side by side.

Each half is upstream's own where a projection has dropout, a bias of its adapter, no active adapter or a packed base
weight that is not of bitsandbytes, and while torch.compile traces.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from patcher.ops.lora import Adapter

MODULE = "unsloth.kernels.fast_lora"


class Projection(NamedTuple):
    """A base weight ``[out, in]``, dense or packed, with its adapter ``A``, ``B`` and scale."""

    weight: Tensor
    quant_state: Any
    A: Tensor | None
    B: Tensor | None
    scale: float | None

    @property
    def adapter(self) -> Adapter:
        """The adapter of a projection that `are_plain` takes."""
        return Adapter(self.A, self.B, self.scale)  # type: ignore[arg-type]

    def product(self, X: Tensor) -> Tensor:
        """``X @ weight^T``, by upstream's own function."""
        found: Tensor = upstream().matmul_lora(X, self.weight, self.quant_state, None, None, None)
        return found


class Base(NamedTuple):
    """What the backward needs of a base weight, which is no tensor that autograd saves."""

    weight: Tensor
    quant_state: Any

    @property
    def dense(self) -> Tensor:
        """``[out, in]``, by upstream's own function."""
        found: Tensor = upstream().fast_dequantize(self.weight.t(), self.quant_state)
        return found.t()

    def back(self, grad: Tensor, out: Tensor | None = None) -> Tensor:
        """``grad @ weight``, in its dtype whatever autocast says: it leaves products with an ``out`` alone."""
        dense = self.dense
        return torch.mm(grad, dense, out=grad.new_empty(grad.shape[0], dense.shape[1]) if out is None else out)

    def add_back(self, grad: Tensor, out: Tensor) -> None:
        """Adds ``grad @ weight`` to ``out``."""
        out.addmm_(grad, self.dense)


def upstream() -> ModuleType:
    """``unsloth.kernels.fast_lora``."""
    return importlib.import_module(MODULE)


def are_plain(X: Tensor, projections: Sequence[Projection], extras: Sequence[object]) -> bool:
    """Whether the projections of ``X`` have adapters of one dtype, bases that are dense or of bitsandbytes, no more."""
    if torch.compiler.is_compiling() or X.dim() != 3 or any(extra is not None for extra in extras):
        return False
    device = X.device.type
    if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) != X.dtype:
        return False
    dtypes = set()
    for one in projections:
        if one.A is None or one.B is None or not _is_base(one, X.dtype):
            return False
        dtypes |= {one.A.dtype, one.B.dtype}
    return len(dtypes) == 1


def _is_base(one: Projection, dtype: torch.dtype) -> bool:
    if one.quant_state is None:
        return one.weight.dtype == dtype
    return isinstance(one.quant_state, importlib.import_module("bitsandbytes.functional").QuantState)


def may_write(X: Tensor, inplace: bool) -> bool:
    """Whether the backward may write the gradient of ``X`` into ``X``; releases before 2026.10 always may."""
    may = getattr(upstream(), "_may_overwrite_input", None)
    return inplace and (may is None or may(X))


def given(*extras: object) -> tuple[object, ...]:
    """``extras`` without the Nones at their end, which earlier releases do not take."""
    while extras and extras[-1] is None:
        extras = extras[:-1]
    return extras
