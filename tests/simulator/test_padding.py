"""Padding with a constant, which makes a contiguous tensor on a Mac."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.simulator.conftest import TORCH

CHANNELS_LAST = torch.channels_last


def test_padding_is_the_cpus_and_contiguous() -> None:
    """Where it only cuts, the format stays (torch's Pad.mm); with torch 2.15 always."""
    x = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=CHANNELS_LAST)
    for pad in ((1, 2), (1, 0, 0, 1), (-1, 1), (-1, 0)):
        padded = F.pad(x.to("mps"), pad, value=3.0)
        assert torch.equal(padded.cpu(), F.pad(x, pad, value=3.0))
        assert padded.is_contiguous() == (TORCH != "2.15" and any(each > 0 for each in pad))


def test_its_gradient_is_the_cpus() -> None:
    """The gradient is padding with what was added taken away."""
    x = torch.arange(6.0).reshape(2, 3)
    here, there = x.to("mps").requires_grad_(), x.clone().requires_grad_()
    F.pad(here, (1, -1)).square().sum().backward()
    F.pad(there, (1, -1)).square().sum().backward()
    assert here.grad is not None and there.grad is not None
    assert torch.equal(here.grad.cpu(), there.grad)
