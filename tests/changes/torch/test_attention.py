"""Attention that is trained on mps: torch's, by blocks. Dropout where no gradient is needed is in test_guards.py."""

from __future__ import annotations

from typing import Any

import pytest

from tests.process import answer, run_module

pytestmark = pytest.mark.slow

BOUND = {"float32": 8, "bfloat16": 2, "float16": 2}
"""In units of the dtype's eps times the largest element. fp32: sums of at most 14 products in another order, and three
operations each way. 16 bits are rounded once forward, half an eps; the backward starts from what was rounded and rounds
once more; the mask is a third."""


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    result: dict[str, Any] = answer(run_module("tests.changes.torch.attended", timeout=200))
    return result


def test_output_and_gradients_are_those_of_float64(found: dict[str, Any]) -> None:
    """Every form of mask, causality, grouping and shape, in three dtypes, each computed by blocks."""
    assert len(found["numbers"]) == 48
    for name, (calls, *distances) in found["numbers"].items():
        assert calls >= 1, name
        assert max(distances) <= BOUND[name.rpartition(", ")[2]], (name, distances)


def test_who_looks_at_operators_gets_torchs_own(found: dict[str, Any]) -> None:
    """Subclasses, modes, torch.compile, forward mode and torch.func; and a forward without gradients."""
    assert all(found["own"].values()), found["own"]


def test_gradients_are_differentiated_again(found: dict[str, Any]) -> None:
    """In fp32, by the formula: three more sums of at most 6 terms."""
    calls, *distances = found["twice"]
    assert calls == 1 and max(distances) <= 16, distances


def test_what_torch_refuses_is_refused_in_its_words(found: dict[str, Any]) -> None:
    """By torch's own, which is called as if there were no other."""
    assert all(found["errors"].values()), found["errors"]


def test_dropout_is_the_same_with_and_without_gradients(found: dict[str, Any]) -> None:
    """Also where a checkpoint computes anew; the generator goes on, and as many are kept as was asked for."""
    dropped = found["dropped"]
    assert dropped["calls"] == [1, 1] and dropped["the same without gradients"] and dropped["another one next"]
    assert dropped["recomputed, reentrant False"] and dropped["recomputed, reentrant True"]
    # 8192 draws: five standard deviations
    assert abs(dropped["kept"] - 0.75) < 5 * (0.75 * 0.25 / 8192) ** 0.5
    assert dropped["scaled"] == pytest.approx(1 / 0.75)


def test_memory_grows_with_the_length(found: dict[str, Any]) -> None:
    """Twice the tokens take less than twice the memory; torch's own takes more for 1024 tokens than this for 4096."""
    first, second, third, own = found["peaks"]
    assert second < 2 * first and third < 2 * second
    assert third < own
