"""``import triton`` works where no Triton is installed, so that modules that define Triton kernels can be imported."""

from __future__ import annotations

from patcher.engine.model import Shim

CHANGES: tuple[Shim, ...] = (
    Shim(
        distribution="triton",
        reviewed="==3.4.0+patcher",
        module="triton",
        version="3.4.0+patcher",
        missed_by=("trl.trainer.utils:_ChunkedLogProbFunction",),
        needed_for="the import of Unsloth's and TRL's kernels",
        why="Unsloth's and TRL's kernel files import Triton when they are imported, and it has no macOS build",
        upstream="unsloth 2026.10.9 unsloth/kernels/*.py; trl 1.15.0 trl/kernels/*.py",
        until="Triton has a macOS build, or Unsloth and TRL import without it",
    ),
)
