"""The low-rank part of projections and its gradients against autograd in float64."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from patcher.ops.lora import Adapter, Layout, add_lora_grad_input, lora, lora_back, lora_gradients, pack
from tests.parity import EPS

TOKENS, WIDTH = 7, 20
GROUPS = {
    "one projection": [(4, 20, 2.0)],
    "equal scales, unequal outputs": [(4, 20, 1.5), (4, 8, 1.5), (4, 8, 1.5)],
    "unequal ranks and scales": [(2, 20, 0.5), (5, 8, 1.5), (3, 12, 0.0)],
}


def _drawn(group: list[tuple[int, int, float]], dtype: torch.dtype) -> tuple[list[Tensor], list[Adapter], Tensor]:
    """Gradients of outputs, fp32 adapters and the input; adapters are numbers of ``dtype``, so that no cast rounds."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    adapters = [
        Adapter((normal(rank, WIDTH) / 4).float(), (normal(out, rank) / 2).float(), scale) for rank, out, scale in group
    ]
    return [normal(TOKENS, out) for _, out, _ in group], adapters, normal(TOKENS, WIDTH)


def _found(grads: list[Tensor], adapters: list[Adapter], X: Tensor) -> list[Tensor]:
    buffer, layout = pack(adapters, X.dtype), Layout.of(adapters)
    outputs = [torch.ones_like(grad) for grad in grads]
    H = lora(X, outputs, buffer, layout)
    G = lora_back(grads, buffer, layout)
    gradients = lora_gradients(X, H, G, grads, layout, torch.float32)
    grad_input = torch.ones_like(X)
    add_lora_grad_input(grad_input, G, buffer, layout)
    return [*outputs, *(part for pair in gradients for part in pair), grad_input]


def _exact(grads: list[Tensor], adapters: list[Adapter], X: Tensor) -> list[Tensor]:
    leaves = [X.double().requires_grad_(), *(one.double().requires_grad_() for pair in adapters for one in pair[:2])]
    pairs = zip(leaves[1::2], leaves[2::2], (adapter.scale for adapter in adapters), strict=True)
    outputs = [1 + scale * leaves[0] @ A.t() @ B.t() for A, B, scale in pairs]
    of_input, *of_adapters = torch.autograd.grad(outputs, leaves, [grad.double() for grad in grads])
    return [*(output.detach() for output in outputs), *of_adapters, of_input + 1]


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_output_and_gradients_are_those_of_float64(group: str, dtype: torch.dtype) -> None:
    """Each is a product of a product: one rounding of H or G, one of the result, one of what it is added to.

    A rounding is `EPS` of the size of what is rounded; errors are compared as norms, which the second product carries
    over by less than 2 here. Sums of at most 20 terms add 4 eps in fp32.
    """
    drawn = _drawn(GROUPS[group], dtype)
    for found, exact in zip(_found(*drawn), _exact(*drawn), strict=True):
        assert found.shape == exact.shape
        allowed = (4 * EPS[dtype] + 4 * EPS[torch.float32]) * exact.norm()
        assert (found.double() - exact).norm() <= allowed


def test_adapters_lie_in_one_buffer_rounded() -> None:
    """Every part is the adapter in the other dtype, to the bit, and nothing lies between the parts."""
    _, adapters, _ = _drawn(GROUPS["unequal ranks and scales"], torch.float32)
    A, B = Layout.of(adapters).parts(pack(adapters, torch.bfloat16))
    rows = Layout.of(adapters).rows
    for adapter, where, part in zip(adapters, rows, B, strict=True):
        assert torch.equal(A[where], adapter.A.bfloat16()) and torch.equal(part, adapter.B.bfloat16())
    assert all(one.stop == next_.start for one, next_ in pairwise(rows)) and A.shape[0] == rows[-1].stop
