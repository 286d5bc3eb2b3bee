"""The interval of keys that each query sees, against a mask."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from patcher.ops.visible_keys import Band, Packed, Pattern, Visible
from tests.ops.attention import seen

PATTERNS = [
    Pattern(1.0, causal=causal, window=window)
    for causal, window in product((False, True), ((None, None), (2, None), (None, 1), (3, 2), (0, 0)))
]


def _check(visible: Visible, expected: torch.Tensor) -> None:
    """Every block of queries: the mask, a span with all that is seen, a span that all see, a width that is enough."""
    queries = expected.shape[0]
    for start, stop in ((a, b) for a in range(queries) for b in range(a + 1, queries + 1)):
        rows = slice(start, stop)
        keys, common = visible.keys(rows), visible.seen_by_all(rows)
        within = torch.zeros_like(expected[rows])
        within[:, keys] = visible.hidden(rows, keys, expected.device).logical_not()
        if keys.start < keys.stop:
            assert torch.equal(within, expected[rows])
        else:
            assert not expected[rows].any()
        assert expected[rows, common].all()
        assert keys.stop - keys.start <= visible.width(stop - start)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("queries, keys", [(5, 5), (3, 7), (6, 4)])
def test_rows_of_one_length(pattern: Pattern, queries: int, keys: int) -> None:
    _check(Band(queries, keys, *pattern.reach), seen(queries, keys, pattern))


def _block_diagonal(rows: list[tuple[int, int]], pattern: Pattern, behind: tuple[int, int]) -> torch.Tensor:
    return torch.block_diag(*(seen(*row, pattern).float() for row in rows), torch.zeros(*behind)).bool()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_packed_rows(pattern: Pattern) -> None:
    lengths = [2, 0, 4, 1]
    starts = torch.tensor([0, *lengths]).cumsum(0)
    visible = Packed(starts, starts, 4, 4, 9, 9, *pattern.reach)
    _check(visible, _block_diagonal([(n, n) for n in lengths], pattern, (2, 2)))
    assert "_starts" not in vars(visible), "the host has waited"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_packed_rows_with_other_numbers_of_keys(pattern: Pattern) -> None:
    rows = [(2, 3), (0, 2), (3, 1), (1, 0), (1, 4)]
    starts = [torch.tensor([0, *lengths]).cumsum(0) for lengths in zip(*rows, strict=True)]
    _check(Packed(*starts, 3, 4, 8, 11, *pattern.reach), _block_diagonal(rows, pattern, (1, 1)))
