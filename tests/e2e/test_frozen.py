"""Attention dropout where no gradient is needed, and ids beyond the vocabulary, in models of transformers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.process import run_module

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What tests/e2e/frozen.py saw."""
    folder = tmp_path_factory.mktemp("frozen")
    run_module("tests.e2e.frozen", folder, timeout=300)
    read: dict[str, Any] = json.loads((folder / "outcomes.json").read_text())
    return read


@pytest.mark.parametrize("model", ["gpt2", "bert"])
def test_dropout_without_gradient_trains_as_on_the_cpu(model: str, found: dict[str, Any]) -> None:
    """The same masks, so the same losses but for rounding: four steps in fp32 on the CPU's kernels."""
    assert found[model]["mps"] == pytest.approx(found[model]["cpu"], rel=1e-5)
    assert len(set(found[model]["mps"])) == 4


def test_an_id_beyond_the_vocabulary_is_named(found: dict[str, Any]) -> None:
    """With the range, and what to do; the last id that there is trains."""
    assert found["right ids"] == ""
    told = found["wrong id"]
    assert told.startswith("IndexBeyondTable: a token id")
    assert "0 to 47" in told and "found:     48" in told and "resize_token_embeddings" in told


def test_a_label_beyond_the_classes_is_named(found: dict[str, Any]) -> None:
    """Three classes have the labels 0 to 2."""
    assert found["right labels"] == ""
    told = found["wrong label"]
    assert told.startswith("IndexBeyondTable: a label") and "0 to 2" in told and "num_labels" in told
