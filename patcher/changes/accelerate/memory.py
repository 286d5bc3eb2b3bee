"""``find_executable_batch_size`` tries a smaller batch where one tensor was too large for Metal."""

from __future__ import annotations

from patcher.changes.accelerate import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="accelerate.utils.memory:should_reduce_batch_size",
        replacement="patcher.replacements.accelerate.memory:should_reduce_batch_size",
        expects="(exception)",
        needed_for=None,
        why="a tensor longer than a Metal buffer may be is refused as `Invalid buffer size`, which accelerate does not "
        "know: auto_find_batch_size and find_executable_batch_size end instead of halving",
        upstream=source("accelerate/utils/memory.py", "should_reduce_batch_size"),
        until="should_reduce_batch_size looks for `Invalid buffer size`",
    ),
)
