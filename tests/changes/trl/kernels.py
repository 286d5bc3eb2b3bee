"""What the tests of TRL's kernels share: its Functions as they are after the patch, inputs, and agreement."""

from __future__ import annotations

from typing import Any

import torch

ALL = ("entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
N, H, V = 7, 24, 61


def function_of(module: Any) -> Any:
    """An autograd Function as TRL's is after the patch."""
    parts = {"forward": staticmethod(module.forward), "backward": staticmethod(module.backward)}
    return type("Patched", (torch.autograd.Function,), parts).apply


def run(module: Any, leaves: list[Any], others: list[Any], grads: list[Any]) -> tuple[list[Any], list[Any]]:
    leaves = [None if t is None else t.detach().requires_grad_() for t in leaves]
    outputs = function_of(module)(*leaves, *others)
    pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if o is not None and g is not None]
    torch.autograd.backward([o for o, _ in pairs], [g for _, g in pairs])
    return [None if o is None else o.detach() for o in outputs], [None if x is None else x.grad for x in leaves]


def agree(found: list[Any], expected: list[Any], tolerance: float) -> None:
    """Equal up to ``tolerance`` times the largest value of each tensor; None stays None."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is None or ours.dtype == torch.bool:
            assert ours is None or torch.equal(ours, theirs)
            continue
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        scale = max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * scale)


def head(dtype: torch.dtype, seed: int, width: int = H, bias: bool = True) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(N, 2 * width, generator=generator)[:, ::2]  # not contiguous
    weight = torch.randn(V, width, generator=generator) / 2
    return [hidden.to(dtype), weight.to(dtype), torch.randn(V, generator=generator).to(dtype) if bias else None]


def targets_of_rows() -> torch.Tensor:
    return torch.randint(0, V, (N,), generator=torch.Generator().manual_seed(5))


def row_grads(seed: int) -> torch.Tensor:
    return torch.randn(N, generator=torch.Generator().manual_seed(seed))
