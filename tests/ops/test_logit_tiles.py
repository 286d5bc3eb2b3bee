"""What the ops over a vocabulary share: tiles of logits and their transform."""

from __future__ import annotations

import pytest
import torch

from patcher.ops.logit_tiles import Head, LogitTransform, TileBuffer, project, spans
from tests.ops.heads import head
from tests.parity import assert_accurate


@pytest.mark.parametrize("transform", [LogitTransform(0.5, 5.0, 0.7), LogitTransform(2.0, None, 1.3)], ids=str)
def test_the_transform_and_its_slope_are_those_of_float64(transform: LogitTransform) -> None:
    """With a softcap the slope depends on the logit, without one it is a number; the tile is left alone."""
    y = torch.linspace(-20, 20, 400).view(4, 100)
    given = y.clone()
    z, slope = transform.with_slope(given)
    assert torch.equal(given, y) and torch.equal(transform(given), z)
    leaf = y.double().requires_grad_()
    scaled = leaf * transform.scale
    cap = transform.softcap
    exact = (scaled if cap is None else cap * torch.tanh(scaled / cap)) / transform.temperature
    (exact_slope,) = torch.autograd.grad(exact.sum(), leaf)
    assert_accurate(z, exact.detach(), roundings=8)
    assert isinstance(slope, float) == (cap is None)
    assert_accurate(torch.as_tensor(slope).expand(4, 100), exact_slope, roundings=8)


@pytest.mark.parametrize(("length", "pieces"), [(0, []), (3, [(0, 3)]), (7, [(0, 3), (3, 6), (6, 7)])])
def test_spans_cover_a_length_once(length: int, pieces: list[tuple[int, int]]) -> None:
    assert list(spans(length, 3)) == pieces


def test_a_projection_is_rounded_where_it_is_written_also_under_autocast() -> None:
    """In the memory of the tile, in its dtype: fp32 stays fp32 where a trainer has switched bf16 on."""
    given = head(1, LogitTransform())
    buffer = TileBuffer(7, 20, torch.float32, given.hidden.device)
    with torch.autocast("cpu", torch.bfloat16):
        tile = given.logits(given.rows(0, 7), 40, 60, buffer)
    assert given.bias is not None and tile.is_contiguous() and tile.data_ptr() == buffer.tile(7, 20).data_ptr()
    exact = given.hidden.double() @ given.weight[40:60].double().t() + given.bias[40:60].double()
    assert_accurate(tile, exact, roundings=32)  # 24 terms
    half = project(given.hidden, given.weight, None, torch.empty(7, 61, dtype=torch.bfloat16))
    assert_accurate(half, given.hidden.bfloat16().double() @ given.weight.bfloat16().double().t(), roundings=2)


def test_gradients_are_summed_in_fp32_and_given_in_each_tensors_dtype() -> None:
    """Zeros for what is asked for and there, None for the rest."""
    given = Head(torch.ones(2, 3).half(), torch.ones(5, 3).bfloat16(), None, LogitTransform(), torch.float16)
    sums = given.zero_gradients((True, False, True))
    assert sums[0] is not None and sums[0].dtype == torch.float32 and sums[0].eq(0).all() and sums[1:] == [None, None]
    hidden, weight, bias = given.in_own_dtypes(sums)
    assert hidden is not None and hidden.dtype == torch.float16 and (weight, bias) == (None, None)
    both = given.in_own_dtypes(given.zero_gradients((True, True, True)))
    assert both[1] is not None and both[1].dtype == torch.bfloat16 and both[2] is None
