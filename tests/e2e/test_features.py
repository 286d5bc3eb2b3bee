"""Features of the Trainer, through Unsloth and transformers on the simulated Mac, against the CPU without patches.

Each stack uses every feature in one process, in fp32, from the same start values. Compared are losses, learning rates,
events, metrics, predictions and the norms of what was trained.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.models import save
from tests.process import run_module

pytestmark = pytest.mark.slow

STACKS = ("cpu", "mps", "unsloth")
FEATURES = (
    "data_collator",
    "callbacks",
    "compute_metrics",
    "compute_loss",
    "compute_loss_func",
    "optimizers",
    "schedules",
    "early_stopping",
    "streaming",
    "accumulation",
    "neftune",
    "dora",
    "rslora",
    "pissa",
    "modules_to_save",
    "several_adapters",
    "continued_pretraining",
    # Last: Unsloth gives no adapter to any model that is loaded after one for full fine-tuning.
    "full_fine_tuning",
)
EQUAL = 1e-4
"""Relative, over 5 steps in fp32: rounding alone gives about 1e-6."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What every feature did, by stack and feature; one process for each stack."""
    folder = tmp_path_factory.mktemp("features")
    model = save("llama", folder)
    found: dict[str, dict[str, Any]] = {}
    for stack in STACKS:
        out = folder / stack
        out.mkdir()
        spec = {"stack": stack, "model": str(model), "out": str(out), "features": FEATURES}
        (folder / f"{stack}.json").write_text(json.dumps(spec))
        # What torch.compile makes of Unsloth's kernels is the business of other tests.
        run_module(
            "tests.e2e.features",
            folder / f"{stack}.json",
            UNSLOTH_COMPILE_LOCATION=str(folder / "compiled"),
            TORCHDYNAMO_DISABLE="1",
        )
        found[stack] = {name: json.loads((out / f"{name}.json").read_text()) for name in FEATURES}
    return found


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Every number and word of nested lists and objects, by its path."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = dict(enumerate(value)).items()
    else:
        return {path: value}
    return {key: leaf for name, part in parts for key, leaf in flat(part, f"{path}/{name}").items()}


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("stack", STACKS[1:])
def test_a_feature_does_what_it_does_on_the_cpu(results: dict[str, dict[str, Any]], stack: str, name: str) -> None:
    """Words and whole numbers are the same, other numbers equal within 1e-4."""
    ours, expected = flat(results[stack][name]), flat(results["cpu"][name])
    assert len(expected) >= 5
    assert ours.keys() == expected.keys()
    for path, value in expected.items():
        assert ours[path] == (pytest.approx(value, rel=EQUAL) if isinstance(value, float) else value), path


@pytest.mark.parametrize("stack", STACKS)
def test_the_features_were_used(results: dict[str, dict[str, Any]], stack: str) -> None:
    """What would make equality an empty word: no noise drawn, no early stop, no second adapter."""
    found = results[stack]
    assert len(found["neftune"]["drawn"]) == 5
    assert found["neftune"]["none"] == 0
    assert (found["early_stopping"]["steps"], found["early_stopping"]["best"]) == (4, "checkpoint-2")
    assert found["early_stopping"]["again"] == min(found["early_stopping"]["evaluations"])
    assert len({found["several_adapters"][key] for key in ("first", "second", "neither")}) == 3
    assert any("on_evaluate 2" in event for event in found["callbacks"]["events"])
    assert not any(event.endswith(" 5") for event in found["callbacks"]["events"])
