"""A Trainer's checkpoint is complete or absent, is checked before it is used, and holds the random state of mps."""

from __future__ import annotations

from patcher.changes.transformers import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch


def _patch(name: str, expects: str, why: str, until: str, everywhere: bool = True) -> Patch:
    return Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target=f"transformers.trainer:Trainer.{name}",
        replacement=f"patcher.replacements.transformers.trainer_checkpoint:{name}",
        expects=expects,
        needed_for=None,
        why=why,
        upstream=source("transformers/trainer.py", f"Trainer.{name}"),
        until=until,
        everywhere=everywhere,
    )


CHANGES: tuple[AnyChange, ...] = (
    _patch(
        "_save_checkpoint",
        "(self, model, trial)",
        "a kill while checkpoint-N is written leaves a folder that looks like a checkpoint, and a resume takes it",
        "transformers writes checkpoints beside their final name and renames them",
    ),
    _patch(
        "_get_output_dir",
        "(self, trial)",
        "a checkpoint is written into another folder first, and everything that saves asks here where",
        "Trainer._save_checkpoint is not patched",
    ),
    _patch(
        "_push_from_checkpoint",
        "(self, checkpoint_folder)",
        "the upload runs in the background and must read the checkpoint under its final name",
        "Trainer._save_checkpoint is not patched",
    ),
    _patch(
        "_load_from_checkpoint",
        "(self, resume_from_checkpoint, model=None)",
        "a truncated or altered checkpoint is loaded in parts, with an error that names no file, or with none, and "
        "of an adapter with a reference beside it (DPO) the reference alone is loaded, so the training is lost",
        "transformers checks a checkpoint before it loads one, and loads the adapter beside the subfolders too",
    ),
    _patch(
        "_save_rng_state",
        "(self, output_dir)",
        "the random state of mps is not saved, so dropout after a resume differs from an uninterrupted run",
        "transformers saves the random state of mps",
        everywhere=False,
    ),
    _patch(
        "_load_rng_state",
        "(self, checkpoint)",
        "the random state of mps is not restored",
        "transformers restores the random state of mps",
        everywhere=False,
    ),
    _patch(
        "_run_epoch",
        "(self, model, epoch, train_dataloader, steps_in_epoch, num_update_steps_per_epoch, trial, "
        "ignore_keys_for_eval, start_time, resume_from_checkpoint, epochs_trained, steps_trained_in_current_epoch)",
        "within an epoch, a resumed run orders its rows anew where the sampler has no seed (group_by_length), "
        "and trains one step too many where max_steps was reached",
        "transformers restores the generators before the sampler draws, and looks at max_steps before a step",
    ),
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="transformers.trainer_callback:CallbackHandler.on_save",
        replacement="patcher.replacements.transformers.trainer_checkpoint:on_save",
        expects="(self, args, state, control, **kwargs)",
        needed_for=None,
        why="a checkpoint that a callback or an overridden _save_checkpoint has touched would count as damaged",
        upstream=source("transformers/trainer_callback.py", "CallbackHandler.on_save"),
        until="Trainer._save_checkpoint is not patched",
        everywhere=True,
    ),
)
