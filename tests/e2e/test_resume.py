"""A run that was interrupted and resumed in another process is the uninterrupted one, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.models import save
from tests.process import run_module

pytestmark = pytest.mark.slow

STATE = ("weights", "optimizer", "scheduler", "scaler", "generators")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("llama", tmp_path_factory.mktemp("model"))


def runs(stack: str, model: Path, folder: Path, *kinds: str) -> dict[str, Any]:
    """What both runs of each kind had (see tests/e2e/resume.py)."""
    out = folder / "out.json"
    for _ in range(2 if stack == "unsloth" else 1):
        run_module("tests.e2e.resume", stack, model, out, *kinds, cwd=folder)
    result: dict[str, Any] = json.loads(out.read_text())
    assert list(result) == list(kinds)
    return result


def assert_same(whole: dict[str, Any], resumed: dict[str, Any]) -> None:
    """The state at the end, every loss, gradient norm and learning rate, and the rows of each step after the resume."""
    assert resumed["steps"] == whole["steps"]
    assert {name: resumed[name] for name in STATE} == {name: whole[name] for name in STATE}
    assert len(resumed["rows"]) < len(whole["rows"]), "it has begun anew"
    assert resumed["rows"] == {step: whole["rows"][step] for step in resumed["rows"]}


def test_transformers_and_trl(tmp_path: Path, model: Path) -> None:
    """Trainer with dropout under gradient checkpointing in fp32 and in fp16 with a loss scaler, killed within the first
    and the second epoch, rows at random and grouped by length; SFT with two batches a step and DPO of an adapter."""
    kinds = ("trainer", "fp16", "by length", "sft", "dpo")
    for kind, result in runs("trl", model, tmp_path, *kinds).items():
        assert_same(result["whole"], result["resumed"])
        assert (result["whole"]["scaler"] is not None) is (kind == "fp16")
        # dropout is drawn from mps' generator: without its state, which transformers does not save, the runs differ
        if kind == "trainer":
            assert result["without"]["steps"][:3] == result["whole"]["steps"][:3]
            assert result["without"]["steps"][3:] != result["whole"]["steps"][3:]


def test_unsloth(tmp_path: Path, model: Path) -> None:
    """SFT, 16 and 4 bit, and DPO as Unsloth generates their trainers, with its own gradient checkpointing and dropout
    in the adapter."""
    for result in runs("unsloth", model, tmp_path, "sft", "dpo", "4bit").values():
        assert_same(result["whole"], result["resumed"])
