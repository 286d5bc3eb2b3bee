"""The two halves of ``torch.nn.utils.clip_grad_norm_`` over gradients that are joined where they lie side by side."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace

import torch
from torch import Tensor

from patcher.engine.ledger import original
from patcher.ops.runs import runs

_MODULE = "torch.nn.utils.clip_grad"


@torch.no_grad()
def _get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """As torch: the norm of the norms of all parts is that of the whole, whatever the parts are.

    That of order 0 is not: it counts the tensors of which one element is not 0.
    """
    of = _joined(tensors) if norm_type else tensors
    found: Tensor = original(f"{_MODULE}:_get_total_norm")(of, norm_type, error_if_nonfinite, foreach)
    return found


@torch.no_grad()
def _clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """As torch, to the bit."""
    of = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    joined = _joined([parameter.grad for parameter in of if parameter.grad is not None])
    holders = [SimpleNamespace(grad=gradient) for gradient in joined]
    original(f"{_MODULE}:_clip_grads_with_norm_")(holders, max_norm, total_norm, foreach)


def _joined(tensors: Tensor | Iterable[Tensor]) -> list[Tensor]:
    every = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    plain = all(type(one) is Tensor and one.device.type == "mps" and one.layout is torch.strided for one in every)
    return runs(every) if plain and not torch.compiler.is_compiling() else every
