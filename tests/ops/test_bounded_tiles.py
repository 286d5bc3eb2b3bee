"""Tiles of a head's logits: their shape, the places of labels in them, and the rows that count."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patcher.ops import bounded_tiles
from patcher.ops.bounded_tiles import SCRATCH, Tiles, counted_rows, positions
from patcher.ops.logit_tiles import Head, LogitTransform


def tiles_of(rows: int, width: int, vocabulary: int, dtype: torch.dtype, softcap: float | None = None) -> Tiles:
    """Of tensors without memory."""
    with torch.device("meta"):
        head = Head(
            torch.empty(rows, width, dtype=dtype),
            torch.empty(vocabulary, width, dtype=dtype),
            None,
            LogitTransform(softcap=softcap),
            dtype,
        )
        return Tiles(head, torch.empty(rows, dtype=torch.int64), None)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    rows=st.integers(1, 20000),
    width=st.sampled_from((1, 64, 576, 1024, 4096, 8192)),
    vocabulary=st.sampled_from((2, 100, 49152, 128256, 262144)),
    dtype=st.sampled_from((torch.float32, torch.float16, torch.bfloat16)),
    softcap=st.sampled_from((None, 30.0)),
)
def test_tiles_fit_and_cover(rows: int, width: int, vocabulary: int, dtype: torch.dtype, softcap: float | None) -> None:
    """Memory, the length of sums, and products that are not too thin: 4 Mi elements, where there are so many."""
    tiles = tiles_of(rows, width, vocabulary, dtype, softcap)
    size, wide = dtype.itemsize, 4 + (dtype.itemsize if dtype.itemsize < 4 else 0) + 4 * (softcap is not None)
    memory = tiles.height * (tiles.width * wide + width * (4 + 2 * size))
    assert memory <= SCRATCH and tiles.width <= 16384
    assert next(last - first for first, last in tiles.blocks()) == tiles.height <= 1024
    assert [start for _, start, _ in tiles.pieces()] == list(range(0, vocabulary, tiles.width))
    if rows >= 1024 and vocabulary >= 49152:
        assert tiles.height >= min(1024, SCRATCH // 2 // (width * 12)) and tiles.height * tiles.width >= 1 << 20


def test_labels_are_found_in_their_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ones at the labels among zeros are the one-hot matrix, in tiles of two widths."""
    monkeypatch.setattr(bounded_tiles, "SCRATCH", 1 << 9)
    labels = torch.tensor([0, 63, 64, 99, 100, 127, 128, 150, 5])
    head = Head(torch.randn(len(labels), 4), torch.randn(151, 4), None, LogitTransform(), torch.float32)
    tiles = Tiles(head, labels, None)
    widths = set()
    for first, last in tiles.blocks():
        places, rows = tiles.places(first, last), tiles.rows(first, last)
        for number, start, end in tiles.pieces():
            y = tiles.product(rows, head.columns(start, end))
            torch.testing.assert_close(y, rows @ head.weight[start:end].t())
            flat = torch.zeros(y.numel() + 1).index_fill_(0, places[number], 1.0)
            assert torch.equal(flat[:-1].view_as(y), torch.eye(151)[labels[first:last], start:end])
            widths.add(end - start)
    assert len(widths) == 2 and len(list(tiles.blocks())) > 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), max_size=50))
def test_positions_are_those_of_nonzero(mask: list[bool]) -> None:
    """In order, for no row and for all."""
    found = positions(torch.tensor(mask, dtype=torch.bool), sum(mask))
    assert torch.equal(found, torch.tensor(mask, dtype=torch.bool).nonzero()[:, 0])


def test_all_rows_need_no_index() -> None:
    """They are read where they are."""
    assert counted_rows(torch.tensor([0, 3, 2]), 4, -100) is None
    found = counted_rows(torch.tensor([7, 3, 7, 2]), 4, 7)
    assert found is not None and found.tolist() == [1, 3]
