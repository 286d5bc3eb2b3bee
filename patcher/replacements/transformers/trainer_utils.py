"""Which checkpoint is the last one, and which are to go."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from patcher.checkpoints import inspection, storage

_CHECKPOINT = re.compile(r"^checkpoint-(0|[1-9]\d*)$")

log = logging.getLogger("patcher")


def get_last_checkpoint(folder: str) -> str | None:
    """The newest checkpoint in ``folder`` that is complete; None where there is none. Says what it skips, and why.

    One without a manifest that lacks the optimizer's, the scheduler's or the generators' state counts only where
    there is no better one: it may be the rest of a deletion, or have been saved with ``save_only_model``.
    """
    for name in storage.finish_interrupted(Path(folder)):
        log.warning("patcher: a save of %s in %s was interrupted; what is there of it is not used", name, folder)
    partial: tuple[str, str] | None = None
    for path in _newest_first(folder):
        verdict = inspection.inspect(Path(path))
        if verdict.problems:
            log.warning("patcher: %s is skipped: %s", path, "; ".join(verdict.problems))
        elif verdict.shortcomings:
            partial = partial or (path, verdict.shortcomings)
        else:
            return path
    if partial is None:
        return None
    log.warning("patcher: %s has %s", *partial)
    return partial[0]


def _newest_first(folder: str) -> list[str]:
    steps = [int(match[1]) for name in os.listdir(folder) if (match := _CHECKPOINT.match(name))]
    paths = [os.path.join(folder, f"checkpoint-{step}") for step in sorted(steps, reverse=True)]
    return [path for path in paths if os.path.isdir(path)]


def rotate_checkpoints(
    output_dir: str,
    save_total_limit: int | None = None,
    best_model_checkpoint: str | None = None,
    use_mtime: bool = False,
    checkpoint_prefix: str = "checkpoint",
) -> None:
    """Removes the oldest checkpoints beyond ``save_total_limit``, each whole; never the newest, nor the best."""
    from transformers.trainer_utils import sort_checkpoints

    if not save_total_limit or save_total_limit < 0:
        return
    oldest_first = sort_checkpoints(output_dir, checkpoint_prefix, use_mtime)
    kept = {str(Path(path)) for path in (*oldest_first[-1:], best_model_checkpoint) if path is not None}
    too_many = len(oldest_first) - max(save_total_limit, len(kept))
    for path in [path for path in oldest_first if str(Path(path)) not in kept][: max(too_many, 0)]:
        try:
            storage.remove(Path(path))
        except OSError as error:
            log.warning("patcher: %s, which save_total_limit=%s is to remove, stays: %s", path, save_total_limit, error)
