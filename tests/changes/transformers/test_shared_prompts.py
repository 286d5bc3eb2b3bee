"""A prompt of several rows is computed once; whole generations are in tests/e2e/test_generation.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.process import run_module

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What `tests.changes.transformers.sharing` printed."""
    done = run_module("tests.changes.transformers.sharing", timeout=240)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize("way", ["greedy", "long", "sampled", "several sequences", "beams"])
def test_the_tokens_are_upstreams(way: str, found: dict[str, Any]) -> None:
    """Three prompts four times each, also longer than the window; in the last two ways each row several times."""
    rows = {"several sequences": 24, "beams": 36}.get(way, 12)
    shared, apart = found["ways"][way]["tokens"]
    assert found["ways"][way]["rows"] == [3, rows]
    assert shared == apart
    assert len({tuple(row) for row in shared}) > 1


def test_scores_are_upstreams(found: dict[str, Any]) -> None:
    """The first ones are the prefill's, the others rest on the copied cache.

    Of two layers: eight products follow one another, of at most 64 terms each, which round by 2^-24 times their root.
    """
    assert found["scores"]["off"] <= 8 * 8 * 2**-24 * found["scores"]["largest"]


def test_completions_of_one_prompt_take_the_work_of_one(found: dict[str, Any]) -> None:
    """FLOPs of eight rows with one prompt, and what they hold at most."""
    one, shared, apart = (found["work"][name] for name in ("one", "shared", "apart"))
    assert shared[0] < 1.01 * one[0] and apart[0] > 7.9 * one[0]
    assert shared[1] < apart[1] / 2


@pytest.mark.parametrize(
    ("case", "rows"),
    [
        *(
            (case, 3)
            for case in ("the CPU", "a static cache", "hidden states", "no cache", "in pieces", "a filled cache")
        ),
        ("another mask", 3),
        ("prompts that differ", 3),
        ("numbers that differ", 3),
        ("equal numbers", 1),
        ("a hook of the script", 3),
        ("a hook of transformers", 1),
        ("noise", 3),
        ("dropout", 3),
        ("training without dropout", 1),
    ],
)
def test_only_what_is_computed_by_rows_is_shared(case: str, rows: int, found: dict[str, Any]) -> None:
    assert found["rows"][case] == rows


def test_rows_with_adapters_of_their_own_are_computed_apart(found: dict[str, Any]) -> None:
    """PEFT's ``adapter_names`` has a name for each row of the batch."""
    rows, (first, second, third, fourth) = found["adapters"]
    assert rows == 4
    assert first == third != second == fourth
