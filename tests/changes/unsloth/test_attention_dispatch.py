"""Unsloth's attention on mps, against upstream's own on the CPU in float64."""

from __future__ import annotations

from typing import Any

import pytest

from tests.process import answer, run_module

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    result: dict[str, Any] = answer(run_module("tests.changes.unsloth.attended", timeout=200, TORCHDYNAMO_DISABLE="1"))
    return result


def test_output_and_gradients_are_upstreams(found: dict[str, Any]) -> None:
    """Packed, windowed, padded, soft-capped and plain rows, in fp32: sums of up to 96 terms, 16 eps of the largest."""
    assert len(found["distances"]) == 13
    for name, distances in found["distances"].items():
        assert max(distances) <= 16, (name, distances)


def test_no_mask_of_queries_by_keys_is_held(found: dict[str, Any]) -> None:
    """A forward without gradients of 8192 tokens holds less than half of a boolean mask of theirs, 64 MiB.

    Scores of one block are 8 MiB in the variant in torch, the output 512 KiB.
    """
    assert set(found["held"]) == {"packed", "window", "padded"}
    for name, held in found["held"].items():
        assert held < 32 * 2**20, (name, held)


def test_gemma_2_is_asked_for_a_softcap(found: dict[str, Any]) -> None:
    """Its attention takes the way of flash-attn, which other models do not."""
    assert found["softcapping"] == [True, True] and found["others"] is False
