"""A full disk, damaged checkpoints and losses that are no numbers, in transformers' own Trainer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.interposer import library
from tests.process import run_module

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What tests/e2e/broken_runs.py saw."""
    folder = tmp_path_factory.mktemp("broken")
    run_module(
        "tests.e2e.broken_runs", folder / "runs", folder / "out.json", timeout=900, LD_PRELOAD=str(library(folder))
    )
    found: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return found


def test_a_full_disk_leaves_the_last_checkpoint(result: dict[str, Any]) -> None:
    """From each of several file operations on (ENOSPC, in Python, safetensors and torch), by a real limit on file size,
    and on a real full file system where one can be mounted: a clear error, nothing half written, and the run goes on
    bit for bit when there is space again."""
    assert {"limit", "operation 2", "operation 58"} <= set(result["full"])
    for way, found in result["full"].items():
        kind, text = found["error"]
        assert kind == "CheckpointNotSaved", way
        assert "checkpoint-6 could not be saved" in text and "GiB are free" in text
        assert "checkpoint-4 is complete" in text
        assert found["names"] == found["complete"] == ["checkpoint-4"], way
        assert found["resumed"] == result["expected"], way


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("truncated", "model.safetensors has"),
        ("flipped", "optimizer.pt has other content than was saved"),
        ("missing", "trainer_state.json is missing"),
        ("foreign", "trainer_state.json has"),
        ("bomb", "rng_state.pth has"),
        ("bomb, old form", "optimizer.pt holds a pickle that would run posix.mkdir: refused"),
        ("legacy bomb, old form", "optimizer.pt is truncated, or no torch file"),
    ],
)
def test_a_damaged_checkpoint_is_not_used(result: dict[str, Any], damage: str, named: str) -> None:
    """By its path it is refused, with its file named; as the newest one it is skipped and training goes on from the one
    before. No pickle runs."""
    found = result["damaged"][damage]
    kind, text = found["by path"]
    assert kind == "CheckpointDamaged" and named in text and "nothing was loaded" in text
    assert found["newest"] == ["none", ""]
    assert result["damaged"]["exploded"] is False


def test_a_loss_that_is_no_number_stops_where_asked(result: dict[str, Any]) -> None:
    """The step and the module are named: of a weight, of an output, of rows without labels. Not asked, transformers
    goes on to the end; its own debug option works on mps."""
    nan = result["nan"]
    kind, text = nan["weight"]["error"]
    assert (kind, nan["weight"]["steps"]) == ("LossNotFinite", 3)
    assert "the loss of step 4 is nan" in text and "model.layers.1.mlp.down_proj (Linear)" in text
    assert "its weight is not finite: the update of step 3" in text
    kind, text = nan["module"]["error"]
    assert kind == "LossNotFinite" and "of step 1" in text and "model.layers.0" in text
    assert "its inputs are finite" in text
    kind, text = nan["labels"]["error"]
    assert kind == "LossNotFinite" and "the model (LlamaForCausalLM)" in text and "-100" in text
    assert nan["off"] == {"error": ["none", ""], "steps": 9}
    assert nan["upstream"]["error"][0] == "ValueError" and nan["upstream"]["steps"] == 3
    assert nan["fine"]["digest"] == result["expected"], "watching changes nothing"


def test_the_best_checkpoint_and_uploads(result: dict[str, Any]) -> None:
    """The best one is kept and recorded under its final place, in its own state too; uploads read complete folders."""
    found = result["best"]
    best = found["best"]
    assert best.endswith("best/checkpoint-2")
    assert found["states"] == {"checkpoint-2": best, "checkpoint-9": best}
    assert set(found["complete"]) == {"checkpoint-2", "checkpoint-9"}
    checkpoints = [(name, there) for name, there in found["uploads"] if name.startswith("checkpoint-")]
    assert checkpoints == [(f"checkpoint-{step}", True) for step in (2, 4, 6, 8, 9)]
