"""Rotary embedding against float64; parity with Unsloth is in tests/changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from patcher.ops import row_chunks
from patcher.ops.rope import rope_
from tests.ops.largest import LargestFloat32
from tests.ops.rotation import DTYPES, HEAD, heads, rotated_in_float64, tables
from tests.parity import assert_accurate


@pytest.fixture(autouse=True)
def _one_token_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_chunks, "ELEMENTS", 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("table_dtype", [torch.float32, None])
@pytest.mark.parametrize("positions", [None, torch.tensor([[10, 0, 3, 3, 1], [0, 1, 2, 0, 1]], dtype=torch.int32)])
def test_heads_are_rotated_as_inrotated_in_float64(
    dtype: torch.dtype, table_dtype: torch.dtype | None, positions: Tensor | None
) -> None:
    """Strided heads, a packed batch's positions, 16-bit and fp32 tables: two products, three roundings."""
    x, (cos, sin) = heads(dtype, 1), tables(table_dtype or dtype)
    out = rope_(x, cos, sin, out=torch.empty_like(x), positions=positions)
    assert out.dtype == dtype
    assert_accurate(out, rotated_in_float64(x, cos, sin, positions))


@pytest.mark.parametrize("transpose", [False, True])
def test_rotating_in_place_gives_the_same_bits(transpose: bool) -> None:
    """Both halves are read before either is written, also when the halves share one tensor with a gap."""
    x, (cos, sin) = heads(torch.bfloat16, 2), tables(torch.bfloat16)
    separate = rope_(x, cos, sin, out=torch.empty_like(x), transpose=transpose)
    assert rope_(x, cos, sin, out=x, transpose=transpose) is x
    assert torch.equal(x, separate)


def test_the_transpose_undoes_the_rotation_and_is_the_gradient() -> None:
    """A rotation's inverse is its transpose; half tables do, because only their first half is read."""
    x, (cos, sin) = heads(torch.float32, 3), tables(torch.float32)
    y = rope_(x, cos[:, : HEAD // 2], sin[:, : HEAD // 2], out=torch.empty_like(x))
    back = rope_(y, cos, sin, out=torch.empty_like(y), transpose=True)
    assert_accurate(back, x.double())
    leaf = x.double().requires_grad_()
    rotated_in_float64(leaf, cos, sin, None).backward(y.double())
    assert leaf.grad is not None
    assert_accurate(back, leaf.grad)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 40, HEAD), (4, 1, 10, HEAD), (1, 4, 10, HEAD)])
def test_a_long_sequence_is_held_in_fp32_a_piece_at_a_time(
    shape: tuple[int, ...], packed: bool, transpose: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many tokens, samples or heads, and the table's rows for them: 4 tokens' heads of 40 exist in fp32 at once.

    fp16 heads meet bf16 tables: only what the computation itself makes is fp32.
    """
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(6)).half()
    tables = [torch.randn(40, HEAD, generator=torch.Generator().manual_seed(i)).bfloat16() for i in range(2)]
    positions = torch.arange(shape[0] * shape[2]).flip(0) % 40 if packed else None
    most = 4 * HEAD
    monkeypatch.setattr(row_chunks, "ELEMENTS", most)
    with LargestFloat32() as seen:
        pieces = rope_(x, *tables, out=torch.empty_like(x), positions=positions, transpose=transpose)
    assert 0 < seen.elements <= most
    monkeypatch.setattr(row_chunks, "ELEMENTS", 1 << 22)
    assert torch.equal(pieces, rope_(x, *tables, out=torch.empty_like(x), positions=positions, transpose=transpose))
