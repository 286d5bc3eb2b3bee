"""The gated delta rule in fp64, step by step, to which kernels in fp32 are compared."""

from __future__ import annotations

from typing import Any

import torch

NAMES = ("o", "dq", "dk", "dv", "dg", "dbeta")


def inputs() -> list[torch.Tensor]:
    """Queries, keys, values, gates, rates and the gradient of the output: 2 sequences of 70, 4 heads of 16."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, do = (torch.randn(2, 70, 4, 16, generator=generator) for _ in range(4))
    beta, g = torch.rand(2, 70, 4, generator=generator), -5 * torch.rand(2, 70, 4, generator=generator)
    return [q, k, v, g, beta, do]


def reference(q: Any, k: Any, v: Any, g: Any, beta: Any) -> torch.Tensor:
    """``S = exp(g) S; S += k beta (v - S k); o = S q / sqrt(d)``, with q and k divided by ``sqrt(|x|^2 + 1e-6)``."""
    q, k = (x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for x in (q, k))
    state = torch.zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3], dtype=q.dtype)
    out = []
    for t in range(q.shape[1]):
        state = state * g[:, t].exp()[..., None, None]
        new = beta[:, t, :, None] * (v[:, t] - torch.einsum("bhkv,bhk->bhv", state, k[:, t]))
        state = state + k[:, t, :, :, None] * new[:, :, None, :]
        out.append(torch.einsum("bhkv,bhk->bhv", state, q[:, t]) * q.shape[-1] ** -0.5)
    return torch.stack(out, dim=1)


def of_transformers(q: Any, k: Any, v: Any, g: Any, beta: Any) -> torch.Tensor:
    """What Qwen3-Next calls: flash-linear-attention's kernels where it is installed, else torch."""
    from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule as rule

    out: torch.Tensor = rule(q, k, v, g=g, beta=beta, use_qk_l2norm_in_kernel=True)[0]
    return out


def run(function: Any, device: str, dtype: torch.dtype) -> list[torch.Tensor]:
    """The output and the gradients of the inputs, in fp64 on the CPU."""
    *made, do = (tensor.to(device, dtype) for tensor in inputs())
    made = [tensor.requires_grad_() for tensor in made]
    out = function(*made)
    out.backward(do)
    return [out.detach().cpu().double(), *(tensor.grad.cpu().double() for tensor in made if tensor.grad is not None)]


def line(name: str, found: list[torch.Tensor], right: list[torch.Tensor]) -> str:
    """A row with the distances, each relative to the norm."""
    off = (((a - b).norm() / b.norm()).item() for a, b in zip(found, right, strict=True))
    return f"| {name} | {' | '.join(f'{value:.1e}' for value in off)} |"
