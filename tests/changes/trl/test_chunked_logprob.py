"""TRL's log-probabilities from hidden states against its Triton kernel; against float64 they are in tests/ops."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from patcher.ops import bounded_tiles
from patcher.replacements.trl import chunked_logprob as trl_chunked_logprob
from tests.changes.trl.kernels import ALL, agree, head, row_grads, run, targets_of_rows
from tests.oracle import INTERPRETED, PATCHED
from tests.parity import EPS


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 3 rows and 16 vocabulary entries, so that small inputs cross several of them."""
    monkeypatch.setattr(bounded_tiles, "ROWS", 3)
    monkeypatch.setattr(bounded_tiles, "COLUMNS", 16)
    monkeypatch.setattr(bounded_tiles, "WHOLE", 8)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("options", "bias"),
    [((0.7, 29, 5.0, 0.5, ALL), True), ((1.0, 61, None, 1.0, ()), False), ((1.3, 1024, None, 2.0, ALL[:1]), True)],
)
def test_chunked_log_prob_equals_trls_kernel(dtype: torch.dtype, options: tuple[Any, ...], bias: bool) -> None:
    """The five outputs and three gradients, with softcap, scale and temperature, over several tiles.

    Both sides round the projection and the tile's gradient to ``dtype`` at the same places; a projection that falls
    on the other side of a rounding boundary moves a logit by one eps of about 8, hence 16 eps (fp32: the sums' order).
    """
    leaves, targets = head(dtype, 1, bias=bias), targets_of_rows()
    grads = [row_grads(2), row_grads(3) if "entropy" in options[4] else None, None, None, None]
    expected = INTERPRETED.call("trl_kernels:chunked_logprob", *leaves, targets, grads, tokens=4, positional=options)
    found = run(trl_chunked_logprob, leaves, [targets, *options], grads)
    tolerance = 16 * EPS[dtype] if dtype != torch.float32 else 64 * EPS[dtype]
    agree(found[0], expected[0], tolerance)
    agree(found[1], expected[1], tolerance)


def test_the_patch_reaches_trls_own_function() -> None:
    """TRL's Function itself, patched, gives what the replacement gives, bit for bit."""
    leaves, targets, grads = head(torch.bfloat16, 1), targets_of_rows(), [row_grads(2), row_grads(3), None, None, None]
    options = (0.7, 29, 5.0, 0.5, ALL)
    found = PATCHED.call("trl_kernels:chunked_logprob", *leaves, targets, grads, tokens=4, positional=options)
    expected = run(trl_chunked_logprob, leaves, [targets, *options], grads)
    agree(found[0], expected[0], 0)
    agree(found[1], expected[1], 0)


def test_autocast_decides_the_projections_dtype() -> None:
    """fp32 inputs under bf16 autocast give what bf16 inputs give, bit for bit."""
    leaves, targets = head(torch.float32, 1), targets_of_rows()
    others = [targets, 1.0, 64, None, 1.0, ALL]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, _ = run(trl_chunked_logprob, leaves, others, [None] * 5)
    rounded, _ = run(trl_chunked_logprob, [t.bfloat16() for t in leaves], others, [None] * 5)
    outside, _ = run(trl_chunked_logprob, leaves, others, [None] * 5)
    assert torch.equal(inside[0], rounded[0]) and not torch.equal(inside[0], outside[0])


@pytest.mark.parametrize("half", ["forward", "backward"])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_each_half_fits_trls_other_half(half: str, softcap: float | None) -> None:
    """So that either is left out alone."""
    leaves, targets = head(torch.float32, 1), targets_of_rows()
    grads = [row_grads(2), row_grads(3), None, None, None]
    options = {"tokens": 4, "positional": (0.7, 29, softcap, 0.5, ALL)}
    expected = INTERPRETED.call("trl_kernels:chunked_logprob", *leaves, targets, grads, **options)
    found = INTERPRETED.call(
        "trl_kernels:chunked_logprob_with_one_half_replaced", half, *leaves, targets, grads, **options
    )
    agree(found[0], expected[0], 64 * EPS[torch.float32])
    agree(found[1], expected[1], 64 * EPS[torch.float32])
