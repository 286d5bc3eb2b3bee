"""Adaptive pooling on mps equals the CPU for any sizes; torch's kernel is asked only where it is right."""

from __future__ import annotations

import pytest
import torch

from patcher.replacements.torch import pooling
from tests.process import answer, run_python

PROGRAM = """
from patcher import patch_for_mac
handle = patch_for_mac(simulate="M3 Max 36GB")
import json, torch
import torch.nn.functional as F

def both(pool, size, out, dtype):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).to(dtype)
    answers = []
    for device in ("mps", "cpu"):
        leaf = x.to(device).requires_grad_()
        y = pool(leaf, out)
        (y * torch.arange(y.numel(), device=device).view_as(y)).sum().backward()
        answers.append([y.detach().cpu(), leaf.grad.cpu()])
    return all(torch.equal(a, b) for a, b in zip(*answers))

sizes = [((12, 12), (6, 6)), ((7, 5), (3, 2)), ((3, 3), (6, 6)), ((4, 10), (8, 5)), ((5, 5), (7, 7)),
         ((8, 9), (None, 6))]
same = {f"{pool.__name__} {size} {out} {dtype}": both(pool, size, out, dtype)
        for pool in (F.adaptive_avg_pool2d, F.adaptive_max_pool2d) for size, out in sizes
        for dtype in (torch.float32, torch.float16, torch.bfloat16)}
try:
    F.adaptive_avg_pool2d(torch.ones(1, 1, 4, 4, device="mps"), (-1, 2)); refused = False
except RuntimeError:
    refused = True
handle.undo()
try:
    F.adaptive_avg_pool2d(torch.ones(1, 1, 7, 5, device="mps"), (3, 2)); undone = False
except NotImplementedError:
    undone = True
print("ANSWER" + json.dumps({"same": same, "refused": refused, "undone": undone}))
"""


def test_sizes_that_do_not_divide_are_pooled_as_on_the_cpu() -> None:
    """Forward and backward, both kinds, larger and smaller outputs; without the change torch refuses."""
    run = run_python("-c", PROGRAM, timeout=120)
    found = answer(run)
    assert len(found["same"]) == 36 and [name for name, same in found["same"].items() if not same] == []
    assert found["refused"] and found["undone"]
    assert run.stderr.count("adaptive_avg_pool2d runs on the CPU") == 1
    assert run.stderr.count("adaptive_max_pool2d runs on the CPU") == 1


def test_torchs_kernel_for_maxima_is_asked_where_windows_have_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulated kernel is right for all sizes, a Mac's is not: it must not be called for the others."""

    class Asked(Exception):
        pass

    class Kernel:
        def call_boxed(self, *arguments: object) -> None:
            raise Asked

    monkeypatch.setattr(pooling, "original", lambda target: Kernel())
    x, y, at = torch.randn(1, 1, 6, 6), torch.randn(1, 1, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.int64)
    assert torch.equal(pooling.adaptive_max_pool2d(None, x, (4, 4))[0], torch.nn.functional.adaptive_max_pool2d(x, 4))
    assert pooling.adaptive_max_pool2d_backward(None, y, x, at).shape == x.shape
    assert pooling.adaptive_max_pool2d(None, torch.randn(1, 1, 2, 2), (4, 4))[0].shape == (1, 1, 4, 4)
    with pytest.raises(Asked):
        pooling.adaptive_max_pool2d(None, x, (3, 2))
    with pytest.raises(Asked):
        pooling.adaptive_max_pool2d_backward(None, torch.randn(1, 1, 3, 2), x, at)
