"""The driver of the GPU that Triton compiles for: there is none."""

from __future__ import annotations

from typing import NoReturn


class _Driver:
    """Answers that no GPU driver is active, the way Triton does: with a RuntimeError."""

    @property
    def active(self) -> NoReturn:
        """Raises RuntimeError; Triton does so too where it finds no GPU, and callers catch it."""
        raise RuntimeError("0 active Triton drivers: Triton has no backend for this machine (patch-for-mac shim)")


driver = _Driver()
