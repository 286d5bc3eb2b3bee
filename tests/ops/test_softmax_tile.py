"""Tiles of logits folded into a softmax, and their gradients, against float64; the Metal variant is in metal/."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from patcher.ops.logit_tiles import LogitTransform
from patcher.ops.softmax_tile import Gradient, Sums, fold_, gradient_
from tests.parity import EPS, assert_accurate

ROWS, WIDTHS = 5, (30, 17)
LABELS = torch.tensor([0, 29, 30, 46, 12])
TRANSFORMS = [LogitTransform(), LogitTransform(-0.5, None, 0.7), LogitTransform(0.5, 3.0, 1.5)]


def tiles(dtype: torch.dtype) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Two of different widths: ``y`` in memory with one element more, places of labels, bias."""
    generator, found, start = torch.Generator().manual_seed(1), [], 0
    for width in WIDTHS:
        memory = torch.full((ROWS * width + 1,), torch.nan, dtype=dtype)
        y = memory[:-1].view(ROWS, width)
        y.copy_(3 * torch.randn(ROWS, width, generator=generator))
        inside = (start <= LABELS) & (start + width > LABELS)
        places = torch.where(inside, torch.arange(ROWS) * width + LABELS - start, ROWS * width)
        found.append((y, places, torch.randn(width, generator=generator)))
        start += width
    return found


def z_and_slope(y: Tensor, bias: Tensor, transform: LogitTransform) -> tuple[Tensor, Tensor]:
    """In float64, the slope by autograd."""
    leaf = y.double().requires_grad_()
    x = (leaf + bias.double()) * transform.scale
    z = (
        x if transform.softcap is None else transform.softcap * torch.tanh(x / transform.softcap)
    ) / transform.temperature
    return z.detach(), torch.autograd.grad(z.sum(), leaf)[0]


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_and_weights_are_those_of_float64(transform: LogitTransform, dtype: torch.dtype) -> None:
    """Without the labels, whose tile it may be; earlier weights are rescaled as it says."""
    given = tiles(dtype)
    exact = [z_and_slope(y, bias, transform) for y, _, bias in given]
    z = torch.cat([each for each, _ in exact], 1)
    others = z.scatter(1, LABELS[:, None], -torch.inf)
    maximum = others.amax(1)
    exp = (others - maximum[:, None]).exp()
    sums, weights = Sums.of_nothing(ROWS, torch.device("cpu"), ("z", "z_exp", "square")), []
    for y, places, bias in given:
        rescale = fold_(y, places, bias, transform, sums, weights=True)
        weights = [each * rescale[:, None] for each in weights] + [y.double()]
    assert sums.z is not None and sums.z_exp is not None and sums.square is not None
    for found, expected in (
        (sums.maximum, maximum),
        (sums.total, exp.sum(1)),
        (sums.z, z.sum(1)),
        (sums.z_exp, (z * exp).sum(1)),
        (sums.square, exp.square().sum(1)),
    ):
        assert_accurate(found, expected, roundings=64)
    expected = exp * torch.cat([slope for _, slope in exact], 1) / transform.factor
    torch.testing.assert_close(torch.cat(weights, 1), expected, rtol=0, atol=16 * EPS[dtype])


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("a", "b", "c"), [(False, False, 0.0), (True, False, 0.01), (True, True, 0.0)])
def test_gradients_are_those_of_float64(
    transform: LogitTransform, dtype: torch.dtype, a: bool, b: bool, c: float
) -> None:
    """``p (a + b log p) - c``, and what is given at the labels, times the slope."""
    generator = torch.Generator().manual_seed(2)
    of_a, of_b = (torch.randn(ROWS, generator=generator) if wanted else None for wanted in (a, b))
    gradient = Gradient(
        torch.rand(ROWS, generator=generator) + 6, torch.randn(ROWS, generator=generator), of_a, of_b, c
    )
    start = 0
    for y, places, bias in tiles(dtype):
        z, slope = z_and_slope(y, bias, transform)
        log_p = z - gradient.log_z[:, None]
        factor = (1.0 if of_a is None else of_a[:, None]) + (0.0 if of_b is None else of_b[:, None] * log_p)
        expected = log_p.exp() * factor - c
        here = (torch.arange(start, start + y.size(1)) == LABELS[:, None]).nonzero(as_tuple=True)
        expected[here] = gradient.at_label[here[0]].double()
        expected *= slope
        gradient_(y, places, bias, transform, gradient)
        bound = 16 * EPS[dtype] * max(1.0, expected.abs().max().item())
        torch.testing.assert_close(y.double(), expected, rtol=0, atol=bound)
        start += y.size(1)


def test_a_tile_of_labels_alone_adds_nothing() -> None:
    """A vocabulary of one token: no maximum, no sum, no weight, and no NaN."""
    y = torch.ones(4)[:-1].view(3, 1)
    sums = Sums.of_nothing(3, torch.device("cpu"), ("z_exp",))
    rescale = fold_(y, torch.arange(3), None, LogitTransform(), sums, weights=True)
    assert rescale.eq(1).all() and sums.total.eq(0).all() and y.eq(0).all()
    assert sums.z_exp is not None and sums.z_exp.eq(0).all()
