"""Data sets are prepared in the training process on the simulated Mac, as Unsloth has it on macOS."""

from __future__ import annotations

from patcher.changes.unsloth_zoo import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch
from patcher.macs.machine import Machine


def _on_macos(machine: Machine) -> str | None:
    return None if machine.simulated else "upstream itself starts no workers on macOS"


CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="unsloth_zoo.dataset_num_proc:_workers_unusable_reason",
        replacement="patcher.replacements.unsloth_zoo.dataset_num_proc:_workers_unusable_reason",
        expects="()",
        needed_for=None,
        skip=_on_macos,
        why="Unsloth asks for the platform, sees Linux, and forks workers from a process that holds the device",
        upstream=source("unsloth_zoo/dataset_num_proc.py", "_workers_unusable_reason"),
        until="the simulated Mac runs on macOS only",
    ),
)
