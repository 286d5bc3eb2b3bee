"""GRPO's checkpoint is written as a whole."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from patcher.replacements.transformers.trainer_checkpoint import _get_output_dir
from patcher.replacements.trl import grpo_trainer


class Trainer:
    """What saving asks of a trainer at step 2, with the patched method that says where."""

    def __init__(self, run_dir: Path) -> None:
        self.args = SimpleNamespace(world_size=1, push_to_hub=False, should_save=False)
        self.state = SimpleNamespace(global_step=2, best_model_checkpoint=None, best_global_step=None)
        self.run_dir = run_dir

    def _get_output_dir(self, trial: object) -> str:
        return _get_output_dir(self, trial)


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    made = Trainer(tmp_path)
    monkeypatch.setattr(
        "patcher.replacements.transformers.trainer_checkpoint.original", lambda target: lambda *_: str(tmp_path)
    )
    return made


def _writes(then: Exception | None) -> Any:
    """TRL's method: transformers' checkpoint, then the state of the entropy bonus."""

    def save(trainer: Trainer, model: object, trial: object) -> None:
        folder = Path(trainer._get_output_dir(trial)) / "checkpoint-2"
        folder.mkdir()
        (folder / "model.safetensors").write_text("w")
        assert not (trainer.run_dir / "checkpoint-2").exists(), "it has its name before it is complete"
        if then is not None:
            raise then
        (folder / "entropy_ctrl_state.json").write_text("{}")

    return save


def test_the_state_of_the_entropy_bonus_comes_with_the_checkpoint(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder gets its name when both are there."""
    monkeypatch.setattr(grpo_trainer, "original", lambda target: _writes(None))
    grpo_trainer._save_checkpoint(trainer, None, None)
    written = {path.name for path in (trainer.run_dir / "checkpoint-2").iterdir()}
    assert {"model.safetensors", "entropy_ctrl_state.json"} <= written


def test_a_save_that_ends_between_the_two_leaves_nothing(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpo_trainer, "original", lambda target: _writes(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        grpo_trainer._save_checkpoint(trainer, None, None)
    assert not (trainer.run_dir / "checkpoint-2").exists()
