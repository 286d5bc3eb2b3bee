"""What a script does to its checkpoints belongs to them: it is kept, and training goes on from them.

Whole or absent, damaged, resumed to the bit: tests/checkpoints, tests/e2e/test_kills.py and tests/e2e/test_resume.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.process import run_module


@pytest.mark.slow
def test_a_checkpoint_that_the_script_has_changed_is_resumed(tmp_path: Path) -> None:
    """Changed by a callback and by an overridden ``_save_checkpoint``, before the save and after it.

    What cannot be put into the manifest is a warning that names the checkpoint, not the end of the training.
    """
    done = run_module("tests.changes.transformers.touching", tmp_path / "run", timeout=240)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["step"] == 6
    assert {"projector.safetensors", "model.safetensors", "checkpoint_manifest.json"} <= set(found["files"])
    assert "optimizer.pt" not in found["files"]
    assert [text for text in found["said"] if "skipped" in text] == []
    (warning,) = [text for text in found["said"] if "could not be renewed" in text]
    assert "checkpoint-6 could not be renewed (Expecting value" in warning
