"""``import triton`` works where no Triton is installed, so that modules that define Triton kernels can be imported."""

from __future__ import annotations

from patcher.changes.triton import DISTRIBUTION
from patcher.changes.unsloth import source as unsloth
from patcher.engine.model import Shim

_VERSION = "3.4.0+patcher"
"""Of the shim, not of the library: the release whose names it has, marked as ours."""

CHANGES: tuple[Shim, ...] = (
    Shim(
        distribution=DISTRIBUTION,
        reviewed=f"=={_VERSION}",
        module="triton",
        version=_VERSION,
        missed_by=("trl.trainer.utils:_ChunkedLogProbFunction",),
        needed_for="the import of Unsloth's and TRL's kernels",
        why="Unsloth's and TRL's kernel files import Triton when they are imported, and it has no macOS build",
        upstream=unsloth("unsloth/kernels/swiglu.py", "triton"),
        until="Triton has a macOS build, or Unsloth's and TRL's kernels can be imported without it",
    ),
)
