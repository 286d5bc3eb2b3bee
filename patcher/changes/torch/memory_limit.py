"""The memory limit that a script sets counts where a model is refused that cannot fit."""

from __future__ import annotations

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import Patch

CHANGES = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="torch.mps:set_per_process_memory_fraction",
        replacement="patcher.replacements.torch.memory_limit:set_per_process_memory_fraction",
        expects="(fraction)",
        needed_for=None,
        why="a model is refused that cannot fit, and torch does not tell which limit the script has set",
        upstream=source("torch/mps/__init__.py", "set_per_process_memory_fraction"),
        until="torch.mps has a getter of the limit",
    ),
)
