"""The memory limit that a script sets counts where a model is refused that cannot fit."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    upstream=source("torch/mps/__init__.py", "set_per_process_memory_fraction"),
    until="torch.mps has a getter of the limit",
)
_HERE = "patcher.replacements.torch.memory_limit"

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="torch.mps:set_per_process_memory_fraction",
        replacement=f"{_HERE}:set_per_process_memory_fraction",
        expects="(fraction)",
        why="a model is refused that cannot fit, and torch does not tell which limit the script has set",
    ),
    *(
        _patch(
            target=f"{module}:get_per_process_memory_fraction",
            replacement=f"{_HERE}:get_per_process_memory_fraction",
            expects="(device=None)",
            why="a CUDA script asks torch.cuda for the limit, which raises where there is no CUDA",
        )
        for module in ("torch.cuda", "torch.cuda.memory")
    ),
)
