"""A training whose script changes its checkpoints after they were saved, and goes on from the last one.

python -m tests.changes.transformers.touching FOLDER; prints what it found as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from patcher import patch_for_mac
from tests.said import kept

said = kept()
handle = patch_for_mac(simulate="M2 16GB")

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import Trainer, TrainerCallback, TrainingArguments  # noqa: E402


class Net(torch.nn.Module):
    """One layer with a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.layer(x).pow(2).mean()}


class Averages(TrainerCallback):
    """Puts other weights into the checkpoint, and takes the optimizer's state out of it, to save space."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        save_file({"layer.weight": torch.full((1, 2), 0.5), "layer.bias": torch.zeros(1)}, folder / "model.safetensors")
        (folder / "optimizer.pt").unlink()


class Overwrites(TrainerCallback):
    """Leaves no manifest that could be renewed."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / "checkpoint_manifest.json").write_text("mine")


class Writes(Trainer):
    """Writes into its checkpoints before and after they are saved."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        folder.mkdir(parents=True)
        save_file({"w": torch.zeros(3)}, folder / "projector.safetensors")
        super()._save_checkpoint(model, trial)
        state = folder / "trainer_state.json"
        state.write_text(json.dumps({**json.loads(state.read_text()), "trial_name": "mine"}))


def trainer(steps: int, callback: TrainerCallback) -> Trainer:
    args = TrainingArguments(sys.argv[1], max_steps=steps, save_steps=2, report_to="none", disable_tqdm=True)
    data = [{"x": torch.ones(2)} for _ in range(64)]
    return Writes(Net(), args, train_dataset=data, callbacks=[callback])


def main() -> None:
    trainer(4, Averages()).train()
    resumed = trainer(6, Overwrites())
    resumed.train(resume_from_checkpoint=True)
    files = sorted(path.name for path in (Path(sys.argv[1]) / "checkpoint-4").iterdir())
    print(json.dumps({"step": resumed.state.global_step, "files": files, "said": said}))


if __name__ == "__main__":
    main()
