"""The random state of mps, in a file of its own beside those that ``Accelerator.save_state`` writes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from patcher.engine.ledger import original

_CHECKPOINTING = "accelerate.checkpointing:"

log = logging.getLogger("patcher")


def save_accelerator_state(
    output_dir: str,
    model_states: Any,
    optimizers: Any,
    schedulers: Any,
    dataloaders: Any,
    process_index: int,
    step: int,
    scaler: Any = None,
    save_on_each_node: bool = False,
    safe_serialization: bool = True,
) -> Any:
    """As accelerate's, and saves the random state of mps."""
    folder = original(_CHECKPOINTING + "save_accelerator_state")(
        output_dir,
        model_states,
        optimizers,
        schedulers,
        dataloaders,
        process_index,
        step,
        scaler,
        save_on_each_node,
        safe_serialization,
    )
    torch.save(torch.mps.get_rng_state(), _file(output_dir, process_index))
    return folder


def load_accelerator_state(
    input_dir: str,
    models: Any,
    optimizers: Any,
    schedulers: Any,
    dataloaders: Any,
    process_index: int,
    scaler: Any = None,
    map_location: Any = None,
    load_kwargs: Any = None,
    **load_model_func_kwargs: Any,
) -> Any:
    """As accelerate's, and restores the random state of mps where there is one."""
    attributes = original(_CHECKPOINTING + "load_accelerator_state")(
        input_dir,
        models,
        optimizers,
        schedulers,
        dataloaders,
        process_index,
        scaler,
        map_location,
        load_kwargs,
        **load_model_func_kwargs,
    )
    file = _file(input_dir, process_index)
    if file.is_file():
        torch.mps.set_rng_state(torch.load(file, weights_only=True))
    else:
        log.warning("patcher: %s has no random state of mps: dropout differs from an uninterrupted run", input_dir)
    return attributes


def _file(folder: str, process_index: int) -> Path:
    return Path(folder) / f"random_states_mps_{process_index}.pt"
