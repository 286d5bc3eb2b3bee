"""What the ops allocate for a moment, and that autocast does not change their arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from patcher.ops import row_chunks
from patcher.ops.cross_entropy import cross_entropy, cross_entropy_backward
from patcher.ops.gated_linear_unit import gated, gated_backward_
from patcher.ops.geglu import gelu, gelu_tanh_and_slope
from patcher.ops.layer_norm import layer_norm, layer_norm_backward
from patcher.ops.rms_norm import rms_norm, rms_norm_backward
from patcher.ops.rope import rope_
from patcher.ops.swiglu import silu, silu_and_slope
from tests.ops.largest import LargestFloat32

ROWS, COLUMNS = 12, 64


VALUES = torch.randn(4, ROWS, COLUMNS, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)


def _x(index: int) -> Tensor:
    return VALUES[index].clone()


def _normed() -> list[Tensor | None]:
    weight, dx = torch.ones(COLUMNS, dtype=torch.bfloat16), torch.empty(ROWS, COLUMNS, dtype=torch.bfloat16)
    y, rstd = rms_norm(_x(1), weight, 1e-6)
    return [y, rms_norm_backward(_x(2), _x(1), weight, rstd, grad_input=dx, needs_grad_weight=True), dx]


def _layer_normed() -> list[Tensor | None]:
    y, mean, rstd = layer_norm(_x(1), torch.ones(COLUMNS), torch.zeros(COLUMNS), 1e-5)
    return [y, *layer_norm_backward(_x(2), _x(1), torch.ones(COLUMNS), mean, rstd, (True, True, True))]


def _rotated() -> list[Tensor | None]:
    x, table = _x(1).view(1, ROWS, 4, COLUMNS // 4).transpose(1, 2), torch.linspace(-1, 1, 96).view(ROWS, 8)
    return [rope_(x, table, table, out=x)]


def _loss() -> list[Tensor | None]:
    labels = torch.arange(ROWS)
    losses, logsumexp = cross_entropy(_x(1), labels, 30.0)
    return [losses, cross_entropy_backward(torch.ones(ROWS), _x(1), labels, losses, logsumexp, 30.0)]


OPS: dict[str, Callable[[], list[Tensor | None]]] = {
    "rms_norm": _normed,
    "layer_norm": _layer_normed,
    "rope": _rotated,
    "swiglu": lambda: [gated(_x(1), _x(2), silu), *gated_backward_(_x(1), _x(2), _x(3), silu_and_slope)],
    "geglu": lambda: [gated(_x(1), _x(2), gelu), *gated_backward_(_x(1), _x(2), _x(3), gelu_tanh_and_slope)],
    "cross_entropy": _loss,
}


@pytest.mark.parametrize("name", OPS)
def test_float32_copies_are_no_larger_than_one_piece(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 16-bit activations with 12 rows, no op holds more than 2 rows in fp32; the results do not depend on it."""
    whole = OPS[name]()
    monkeypatch.setattr(row_chunks, "ELEMENTS", 2 * COLUMNS)
    with LargestFloat32() as seen:
        pieces = OPS[name]()
    assert 0 < seen.elements <= 2 * COLUMNS
    for one, other in zip(whole, pieces, strict=True):
        assert one is not None and other is not None
        torch.testing.assert_close(one, other, rtol=0, atol=2e-2 if name in ("rms_norm", "layer_norm") else 0)


@pytest.mark.parametrize("name", OPS)
def test_autocast_does_not_change_the_arithmetic(name: str) -> None:
    """Inside autocast, where trainers run the model, every op gives the bits that it gives outside."""
    outside = OPS[name]()
    with torch.autocast("cpu", torch.bfloat16):
        inside = OPS[name]()
    for one, other in zip(outside, inside, strict=True):
        assert one is not None and other is not None and torch.equal(one, other)


@pytest.mark.parametrize(("rows", "columns", "pieces"), [(0, 8, 0), (5, 8, 3), (3, 100, 3), (2, 0, 1)])
def test_pieces_cover_every_row_once(rows: int, columns: int, pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No rows, several rows per piece, rows longer than a piece, empty rows."""
    monkeypatch.setattr(row_chunks, "ELEMENTS", 16)
    found = list(row_chunks.row_chunks(rows, columns))
    assert len(found) == pieces
    assert [i for part in found for i in range(part.start, part.stop)] == list(range(rows))
