"""``Accelerator.save_state`` and ``load_state`` hold the random state of mps."""

from __future__ import annotations

from patcher.changes.accelerate import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = tuple(
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target=f"accelerate.checkpointing:{name}",
        replacement=f"patcher.replacements.accelerate.checkpointing:{name}",
        expects=expects,
        needed_for=None,
        why="the random state of mps is not saved, so dropout after load_state differs from an uninterrupted run",
        upstream=source("accelerate/checkpointing.py", name),
        until="accelerate saves and restores the random state of mps",
    )
    for name, expects in (
        (
            "save_accelerator_state",
            "(output_dir, model_states, optimizers, schedulers, dataloaders, process_index, step, scaler=None, "
            "save_on_each_node=False, safe_serialization=True)",
        ),
        (
            "load_accelerator_state",
            "(input_dir, models, optimizers, schedulers, dataloaders, process_index, scaler=None, map_location=None, "
            "load_kwargs=None, **load_model_func_kwargs)",
        ),
    )
)
