"""One change of each library switched off: what `make switch-off` does for every change by itself, as a sample."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from patcher.changes import catalogue
from tests.process import run_module

pytestmark = pytest.mark.slow


def test_a_training_does_without_one_optional_change_of_each_library(tmp_path: Path) -> None:
    """It is left out and nothing else is; Unsloth imports, a step has a loss, and undo leaves nothing."""
    first = {change.distribution: change.key for change in reversed(catalogue()) if not change.required}
    assert {"torch", "transformers", "accelerate", "bitsandbytes", "trl", "unsloth", "unsloth_zoo"} <= set(first)
    out = tmp_path / "found.json"
    lists = [list(first.values()), [first["torch"]]]
    run_module("tests.e2e.switched_off", tmp_path, out, *(",".join(names) for names in lists))
    for names, found in zip(lists, json.loads(out.read_text()), strict=True):
        assert set(found["off"]) == set(names)
        assert (found["error"], found["left"]) == (None, [])
        assert math.isfinite(found["loss"]) and found["loss"] > 1
