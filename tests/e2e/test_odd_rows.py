"""Rows that are empty, too long or no text, and weights that become NaN, through Unsloth and through TRL alone."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest

from tests.e2e.models import save
from tests.process import run_module

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["trl", "unsloth"])
def stack_and_result(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """The stack, and what tests/e2e/odd_rows.py saw with it."""
    stack: str = request.param
    folder = tmp_path_factory.mktemp(stack)
    out = folder / "out.json"
    run_module("tests.e2e.odd_rows", stack, save("llama", folder), out, cwd=folder, timeout=900)
    return stack, json.loads(out.read_text())


def is_trained(found: dict[str, Any]) -> bool:
    return len(found["losses"]) == 2 and all(map(math.isfinite, found["losses"]))


def test_rows_that_are_too_long_are_cut(stack_and_result: tuple[str, Any]) -> None:
    """A row of 3000 words becomes one of 32 tokens, and trains."""
    _, found = stack_and_result
    assert found["overlong"]["lengths"][0] == 32 and is_trained(found["overlong"])


def test_an_empty_row_trains_or_is_named(stack_and_result: tuple[str, Any]) -> None:
    """TRL ends each row with a token: it trains. Through Unsloth, which does not, a batch that begins with it is
    refused, in training and evaluation, and the row is named; as the last of a batch TRL's collator, which makes one
    row of the texts, stops at it, as on CUDA."""
    stack, found = stack_and_result
    if stack == "trl":
        assert found["empty"]["lengths"][0] == found["empty later"]["lengths"][1] == 1
        assert is_trained(found["empty"]) and is_trained(found["empty later"])
        assert found["evaluation"] is None
        return
    for name, dataset in (("empty", "train_dataset"), ("evaluation", "the evaluated data set")):
        kind, text = found[name]["error"]
        assert kind == "RowEmpty" and f"row 0 of {dataset}" in text and "tokenizer.eos_token" in text
    kind, text = found["empty later"]["error"]
    assert kind == "IndexError" and "out of bounds for dimension 0" in text


@pytest.mark.parametrize(
    ("name", "named"),
    [("missing", "NoneType|type `str`"), ("numbers", "'int'"), ("bytes", "bytes"), ("nested", "'list'")],
)
def test_what_is_no_text_is_refused(stack_and_result: tuple[str, Any], name: str, named: str) -> None:
    """When the rows are tokenized, by upstream, before anything trains."""
    kind, text = stack_and_result[1][name]["error"]
    assert kind in ("AttributeError", "ValueError", "TypeError") and re.search(named, text), text


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("nan in a layer", "layers.1.mlp.down_proj.base_layer (Linear)"),
        ("nan in an adapter", "layers.1.self_attn.q_proj.lora_A.default (Linear)"),
        ("nan in the head", "lm_head (Linear)"),
    ],
)
def test_a_weight_that_becomes_nan_is_named(stack_and_result: tuple[str, Any], name: str, module: str) -> None:
    """Also where Unsloth's fused LoRA and fused loss bypass the module that has it."""
    kind, text = stack_and_result[1][name]["error"]
    assert kind == "LossNotFinite" and "the loss of step 2 is nan" in text
    assert module in text and "its weight is not finite: the update of step 1" in text
