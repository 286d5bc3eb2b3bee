"""Another rounding: what it moves, how far, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from patcher.errors import KernelFailed
from patcher.tiles.on_torch import run_counted, run_shaken
from patcher.tiles.on_torch.shaken import LONGER
from tests.tiles.jit import Jit, jit, tl

CPU = torch.device("cpu")


@jit
def halved(x, out, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out + at, tl.load(x + at) * 0.5)


@jit
def chosen(x, out, N: tl.constexpr):
    at = tl.arange(0, N)
    a = tl.load(x + at)
    tl.store(out + at, tl.where(a > 0, -tl.abs(a), tl.maximum(a, tl.max(a, 0))))


@jit
def converted(x, out, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out + at, tl.load(x + at).to(tl.bfloat16).to(tl.float32).to(tl.int32).to(tl.float32))


@jit
def exponential(x, out, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out + at, tl.exp(tl.load(x + at)))


@jit
def summed(x, out, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out + at, tl.load(x + at) - tl.sum(tl.load(x + at), 0))


@jit
def rooted(x, out, N: tl.constexpr):
    at = tl.arange(0, N)
    a = tl.exp(tl.load(x + at))
    root, going = a, 1
    while going > 0:
        new = 0.5 * (root + a / root)
        going = tl.sum((tl.abs(new - root) > 2e-7 * root).to(tl.int32), 0)
        root = new
    tl.store(out + at, root)


def shaken(kernel: Jit, x: torch.Tensor, seed: int, scale: float = 1.0) -> torch.Tensor:
    out = torch.zeros_like(x)
    run_shaken(kernel.compile(x, out, x.numel()), (1, 1, 1), (x, out), CPU, seed, scale)
    return out


def numbers(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.randn(1024, generator=torch.Generator().manual_seed(4)) * 4).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_rounded_is_moved_by_a_step(dtype: torch.dtype) -> None:
    """Up to one, or as many as are asked for; another way for another seed, and the user's random numbers go on."""
    x, state = numbers(dtype), torch.random.get_rng_state()
    eps = torch.finfo(dtype).eps
    for scale in (1.0, 16.0):
        off = (shaken(halved, x, 1, scale).double() / (x.double() / 2) - 1).abs().max() / eps
        assert 0.9 * scale < off <= scale + 0.5
    assert torch.equal(shaken(halved, x, 1), shaken(halved, x, 1))
    assert not torch.equal(shaken(halved, x, 1), shaken(halved, x, 2))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("kernel", [chosen, converted])
def test_choices_and_conversions_are_exact(kernel: Jit) -> None:
    """Of one number every back end makes the same one."""
    x = numbers()
    out = torch.zeros_like(x)
    kernel[(1,)](x, out, 1024)
    assert torch.equal(shaken(kernel, x, 1, 16.0), out)


def test_functions_and_sums_are_moved_by_more() -> None:
    """Functions by 4 steps; the terms of a sum by as many as its tree is high, here 10."""
    x = numbers()
    off = (shaken(exponential, x, 1) / x.exp() - 1).abs().max() / torch.finfo(torch.float32).eps
    assert 3.6 < off < 5
    sums = torch.stack([x - shaken(summed, x, seed) for seed in range(10, 30)])[:, 0].double()
    spread = 10 / 3**0.5 * torch.finfo(torch.float32).eps * x.double().square().sum().sqrt()
    assert 0.5 < sums.std() / spread < 2


def test_a_loop_that_needs_exact_numbers_ends() -> None:
    """After some times as many operations as it takes without."""
    x = numbers()
    out = torch.zeros_like(x)
    args: tuple[Any, ...] = (x, out)
    program = rooted.compile(*args, 1024)
    count = run_counted(program, (1, 1, 1), args, CPU)
    torch.testing.assert_close(out, x.exp().sqrt())
    with pytest.raises(KernelFailed, match=rf"it does not end within {LONGER * count} operations"):
        run_shaken(program, (1, 1, 1), args, CPU, 1, 1.0, count)
