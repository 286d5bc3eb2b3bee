"""How a Trainer on mps saves, checks and restores a checkpoint."""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from patcher.checkpoints import inspection, manifest, storage
from patcher.engine.ledger import original
from patcher.errors import CheckpointDamaged, CheckpointNotSaved, compose

_RNG_STATE = "rng_state.pth"
_TRAINER = "transformers.trainer:Trainer."

_WRITING: ContextVar[tuple[Any, str] | None] = ContextVar("_WRITING", default=None)
"""The trainer that is writing a checkpoint in this thread, and the folder in which it does."""

_EPOCH_STARTS: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()
"""The states of the generators when the epoch of each trainer began."""

_SAVED: ContextVar[Path | None] = ContextVar("_SAVED", default=None)
"""The checkpoint that was saved in this thread, until the callbacks have been told of it."""

_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG, errno.ESTALE}

log = logging.getLogger("patcher")


def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:
    """Saves a checkpoint as transformers does, which is then complete or absent.

    Raises:
        CheckpointNotSaved: it could not be written, most often because the disk is full. Earlier ones are as they were.
    """
    save_whole(self, trial, partial(original(_TRAINER + "_save_checkpoint"), self, model, trial))


def _get_output_dir(self: Any, trial: Any) -> str:
    """The folder of the checkpoints; while one is being written, the folder where it is."""
    folder = _folder_of(self)
    if folder is not None:
        return folder
    place: str = original(_TRAINER + "_get_output_dir")(self, trial)
    return place


def _push_from_checkpoint(self: Any, checkpoint_folder: str) -> None:
    """Uploads a checkpoint once it is complete."""
    if _folder_of(self) is None:
        original(_TRAINER + "_push_from_checkpoint")(self, checkpoint_folder)


def _load_from_checkpoint(self: Any, resume_from_checkpoint: str, model: Any = None) -> None:
    """Loads the weights of a checkpoint that was found to be complete, those of every adapter in it.

    Raises:
        CheckpointDamaged: it is not; nothing was loaded.
    """
    folder = Path(resume_from_checkpoint)
    if folder.is_dir():
        _refuse_if_damaged(folder)
    original(_TRAINER + "_load_from_checkpoint")(self, resume_from_checkpoint, model)
    _load_default_adapter(self.model if model is None else model, folder)


def _load_default_adapter(model: Any, folder: Path) -> None:
    """Loads the adapter that PEFT saves in the folder itself, where transformers 5.17 loads only those in subfolders.

    DPO of an adapter has such a subfolder: the adapter from before the training, as the reference.
    """
    names = ("adapter_model.safetensors", "adapter_model.bin")
    beside = any((path / name).is_file() for path in folder.iterdir() if path.is_dir() for name in names)
    at_root = any((folder / name).is_file() for name in names)
    adapters = getattr(model, "peft_config", {})
    if beside and at_root and "default" in adapters and not (folder / "default").is_dir():
        active = model.active_adapters[0]
        model.load_adapter(str(folder), "default", is_trainable=active == "default")
        model.set_adapter(active)


def _save_rng_state(self: Any, output_dir: str) -> None:
    """Saves the states of all generators, that of mps included."""
    original(_TRAINER + "_save_rng_state")(self, output_dir)
    path = os.path.join(output_dir, _RNG_STATE)
    if os.path.isfile(path):
        added = {"mps": torch.mps.get_rng_state(), "epoch_start": _EPOCH_STARTS.get(self)}
        torch.save({**_rng_states(path), **added}, path)


def _load_rng_state(self: Any, checkpoint: str | None) -> None:
    """Restores the states of all generators, that of mps included where the checkpoint has one."""
    original(_TRAINER + "_load_rng_state")(self, checkpoint)
    path = os.path.join(checkpoint or "", _RNG_STATE)
    if checkpoint is None or not os.path.isfile(path):
        return
    state = _rng_states(path).get("mps")
    if state is None:
        log.warning("patcher: %s has no random state of mps: dropout differs from an uninterrupted run", checkpoint)
    else:
        torch.mps.set_rng_state(state)


def _run_epoch(
    self: Any,
    model: Any,
    epoch: Any,
    train_dataloader: Any,
    steps_in_epoch: Any,
    num_update_steps_per_epoch: Any,
    trial: Any,
    ignore_keys_for_eval: Any,
    start_time: Any,
    resume_from_checkpoint: Any,
    epochs_trained: Any,
    steps_trained_in_current_epoch: Any,
) -> None:
    """Trains for an epoch; for the rest of one where a checkpoint is resumed, which then has its rows in their order.

    Nothing is trained where the checkpoint had already reached ``max_steps``.
    """
    if resume_from_checkpoint is not None and self.state.global_step >= self.state.max_steps:
        self._load_rng_state(resume_from_checkpoint)
        self.control.should_training_stop = True
        return
    within = resume_from_checkpoint is not None and epoch == epochs_trained and steps_trained_in_current_epoch > 0
    _EPOCH_STARTS[self] = (_go_back_to_epoch_start(resume_from_checkpoint) if within else None) or _generators()
    original(_TRAINER + "_run_epoch")(
        self,
        model,
        epoch,
        train_dataloader,
        steps_in_epoch,
        num_update_steps_per_epoch,
        trial,
        ignore_keys_for_eval,
        start_time,
        resume_from_checkpoint,
        epochs_trained,
        steps_trained_in_current_epoch,
    )


def _generators() -> dict[str, Any]:
    """The states of the generators that a sampler may draw the order of an epoch from."""
    return {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.get_rng_state()}


def _go_back_to_epoch_start(checkpoint: str) -> dict[str, Any] | None:
    """Sets the generators as they were when the interrupted epoch began, and gives their states.

    transformers 5.17 restores them after the sampler has drawn its order, so that one without a seed of its own, as
    that of ``train_sampling_strategy="group_by_length"``, would draw another one.
    """
    path = os.path.join(checkpoint, _RNG_STATE)
    states: dict[str, Any] | None = _rng_states(path).get("epoch_start") if os.path.isfile(path) else None
    if states is not None:
        random.setstate(states["python"])
        np.random.set_state(states["numpy"])
        torch.set_rng_state(states["cpu"])
    return states


def _rng_states(path: str) -> dict[str, Any]:
    from transformers import trainer_pt_utils

    allowed: Any = trainer_pt_utils.safe_globals
    with allowed():
        states: dict[str, Any] = torch.load(path, weights_only=True)
    return states


def save_whole(trainer: Any, trial: Any, write: Callable[[], None]) -> None:
    """Lets ``write`` save a checkpoint into a folder of its own, which gets its name when it is complete.

    Uploads and deletions of older ones come after that. A ``write`` within another one is part of it.
    """
    if _folder_of(trainer) is not None or trainer.args.world_size > 1:
        write()
        return
    run_dir = Path(trainer._get_output_dir(trial))
    name = f"checkpoint-{trainer.state.global_step}"
    best_before = trainer.state.best_model_checkpoint
    try:
        with storage.saving(run_dir, name) as folder:
            _write_in(trainer, str(folder), write)
            _correct_state(trainer, run_dir, folder / name, best_before)
    except BaseException as error:
        trainer.state.best_model_checkpoint = best_before
        if _is_of_the_disk(error, run_dir):
            raise _not_saved(error, run_dir, name) from error
        raise
    _SAVED.set(run_dir / name)
    _after(trainer, run_dir, name)


def on_save(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
    """As transformers', and what a script has done to the checkpoint since it was saved belongs to it from then on."""
    answer = original("transformers.trainer_callback:CallbackHandler.on_save")(self, args, state, control, **kwargs)
    saved = _SAVED.get()
    if saved is not None:
        _SAVED.set(None)
        try:
            storage.renew(saved)
        except manifest.UNREADABLE as error:
            log.warning(
                "patcher: the checksums of %s could not be renewed (%s): if a callback has changed its weights or "
                "states, it will not be resumed from; deleting its %s makes it count as it is",
                *(saved, inspection.first_line(error), manifest.NAME),
            )
    return answer


def _write_in(trainer: Any, folder: str, write: Callable[[], None]) -> None:
    token = _WRITING.set((trainer, folder))
    try:
        write()
    finally:
        _WRITING.reset(token)


def _correct_state(trainer: Any, run_dir: Path, written: Path, before: str | None) -> None:
    """Gives ``best_model_checkpoint``, which transformers has looked for in the folder of writing, its final place."""
    step = trainer.state.best_global_step
    best = run_dir / f"checkpoint-{step}"
    there = best.is_dir() or best.name == written.name
    trainer.state.best_model_checkpoint = str(best) if step and there else before
    if (written / inspection.STATE).is_file():
        trainer.state.save_to_json(str(written / inspection.STATE))


def _after(trainer: Any, run_dir: Path, name: str) -> None:
    from transformers.trainer_utils import rotate_checkpoints

    if trainer.args.push_to_hub:
        trainer._push_from_checkpoint(str(run_dir / name))
    if trainer.args.should_save:
        rotate_checkpoints(
            output_dir=str(run_dir),
            save_total_limit=trainer.args.save_total_limit,
            best_model_checkpoint=trainer.state.best_model_checkpoint,
            use_mtime=True,
        )


def _folder_of(trainer: Any) -> str | None:
    writing = _WRITING.get()
    return writing[1] if writing is not None and writing[0] is trainer else None


def _is_of_the_disk(error: BaseException, run_dir: Path) -> bool:
    """Whether writing failed: OSError from Python, and the errors into which torch and safetensors turn it.

    Not one about a file elsewhere, which a script's own code may read or write meanwhile.
    """
    if isinstance(error, OSError):
        elsewhere = isinstance(error.filename, str) and not Path(error.filename).absolute().is_relative_to(
            run_dir.absolute()
        )
        return not elsewhere or error.errno in _OF_THE_DISK
    return any(sign in str(error) for sign in ("PytorchStreamWriter", "inline_container", "I/O error"))


def _not_saved(error: BaseException, run_dir: Path, name: str) -> CheckpointNotSaved:
    there = run_dir.is_dir()
    last = _last_one(run_dir) if there else None
    free = f"; {shutil.disk_usage(run_dir).free / 2**30:.2f} GiB are free there now" if there else ""
    return CheckpointNotSaved(
        compose(
            f"{name} could not be saved",
            target=str(run_dir / name),
            found=f"{type(error).__name__}: {inspection.first_line(error)}{free}",
            left=f"what was written of it is removed; {last or 'there is no earlier checkpoint'}",
            run="free space, or save less (save_total_limit=1, save_only_model=True), then "
            "trainer.train(resume_from_checkpoint=True)",
        )
    )


def _last_one(run_dir: Path) -> str | None:
    from transformers import trainer_utils

    last_checkpoint: Any = trainer_utils.get_last_checkpoint
    last = last_checkpoint(str(run_dir))
    return None if last is None else f"{last} is complete"


def _refuse_if_damaged(folder: Path) -> None:
    verdict = inspection.inspect(folder)
    if verdict.problems:
        has_manifest = (folder / manifest.NAME).is_file()
        raise CheckpointDamaged(
            compose(
                "this checkpoint cannot be used",
                target=str(folder),
                expected="the files as they were saved" if has_manifest else "complete files",
                found="; ".join(verdict.problems),
                left="nothing was loaded",
                run="resume_from_checkpoint=True takes the newest complete one"
                + (f". If you changed it yourself, delete its {manifest.NAME}" if has_manifest else ""),
            )
        )
    if verdict.shortcomings:
        log.warning("patcher: %s has %s", folder, verdict.shortcomings)
