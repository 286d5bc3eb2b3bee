"""Rows that have ended are computed no more; with Unsloth's decoding that is in tests/e2e/test_generation.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.process import run_module

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What `tests.changes.transformers.leaving_out` printed."""
    done = run_module("tests.changes.transformers.leaving_out", timeout=240)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize(("way", "each"), [("greedy", 1), ("sampled", 1), ("penalty", 1), ("several sequences", 2)])
def test_the_tokens_are_upstreams(way: str, each: int, found: dict[str, Any]) -> None:
    """Of eight prompts five end within 32 tokens, one at 45, two at 90; from the look at 32 on three are computed.

    The first forward is that of the prompts, which are computed once.
    """
    ours, theirs = found["ways"][way]["tokens"]
    rows, all_rows = found["ways"][way]["rows"]
    assert ours == theirs
    assert [row.index(2, 8) - 8 for row in ours] == [
        end for end in (20, 90, 20, 45, 10, 90, 20, 20) for _ in range(each)
    ]
    assert rows == [8, *[8 * each] * 31, *[3 * each] * 60]
    assert all_rows == [8, *[8 * each] * 91]


def test_the_work_is_that_of_the_rows_that_live(found: dict[str, Any]) -> None:
    """FLOPs go with the rows: 8 for a prompt of 8 tokens and 31 more, then 3 for 60, and not 8 for 91 more."""
    ours, theirs = found["work"]
    assert abs(ours / theirs - (8 * 39 + 3 * 60) / (8 * 99)) < 0.03


def test_where_a_row_goes_on_all_are_computed(found: dict[str, Any]) -> None:
    """Where the caller sees more than tokens or has given the cache, where that has a fixed size, where no row ends."""
    assert found["rows"] == {
        "what is returned": [8],
        "a static cache": [8],
        "no token that ends": [8],
        "the caller's cache": [8],
        "hooks that stay": [0],
    }
