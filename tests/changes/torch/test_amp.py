"""Autograd functions that were decorated for CUDA's autocast follow the one of mps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from patcher.changes.torch import amp as torch_amp
from patcher.engine.ledger import LEDGER
from patcher.engine.model import Patch


@pytest.fixture
def patched() -> Iterator[None]:
    for change in torch_amp.CHANGES:
        assert isinstance(change, Patch)
        LEDGER.apply(change, torch.amp)
    yield
    LEDGER.undo()


def _autocast_in_backward() -> tuple[bool, torch.dtype]:
    """What the backward of a function decorated as Unsloth's are sees, when its forward ran under mps autocast."""
    seen: list[tuple[bool, torch.dtype]] = []

    class Function(torch.autograd.Function):
        @staticmethod
        @torch.amp.custom_fwd(device_type="cuda")
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        @torch.amp.custom_bwd(device_type="cuda")
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            seen.append((torch.is_autocast_enabled("mps"), torch.get_autocast_dtype("mps")))
            return grad * 2

    x = torch.ones(2, requires_grad=True)
    with torch.autocast("mps", dtype=torch.bfloat16):
        y = Function.apply(x)
    y.sum().backward()
    return seen[0]


@pytest.mark.usefixtures("patched")
def test_backward_runs_under_the_autocast_of_the_forward() -> None:
    """Enabled, and in bfloat16, although the decorators name CUDA."""
    assert _autocast_in_backward() == (True, torch.bfloat16)


def test_without_the_patch_backward_runs_outside_of_autocast() -> None:
    """The reason for the change: decorators for CUDA see an autocast that is never on."""
    assert _autocast_in_backward()[0] is False


@pytest.mark.usefixtures("patched")
def test_other_devices_are_left_alone() -> None:
    """A function decorated for the CPU ignores the autocast of mps, with or without arguments to the decorator."""
    decorate = torch.amp.custom_fwd(device_type="cpu")
    assert decorate.keywords["device_type"] == "cpu"
    assert torch.amp.custom_fwd(device_type="cuda", cast_inputs=torch.float16).keywords == {
        "device_type": "mps",
        "cast_inputs": torch.float16,
    }
