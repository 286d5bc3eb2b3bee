"""The driver of the GPU that kernels run on: that of torch's mps device, where there is one."""

from __future__ import annotations

from typing import Any, NamedTuple

_THREADGROUP_BYTES = 32 * 1024
"""Threadgroup memory that a threadgroup may use, on every Apple GPU."""
_SIMDGROUP = 32
"""Threads of a simdgroup."""


class _Target(NamedTuple):
    """What kernels are compiled for.

    Attributes:
        backend: torch's name of the device.
        arch: the chip, e.g. ``"Apple M3 Max"``.
        warp_size: threads of a simdgroup.
    """

    backend: str
    arch: str
    warp_size: int


class _Utils:
    """Figures of the device."""

    def get_device_properties(self, device: int = 0) -> dict[str, Any]:
        """What libraries choose blocks and grids by: bytes of threadgroup memory, GPU cores, threads of a simdgroup."""
        import torch

        return {
            "max_shared_mem": _THREADGROUP_BYTES,
            "multiprocessor_count": torch.backends.mps.get_core_count(),
            "warpSize": _SIMDGROUP,
        }


class _Active:
    """The driver of the mps device."""

    utils = _Utils()

    def get_current_target(self) -> _Target:
        """The chip."""
        import torch

        return _Target("mps", torch.backends.mps.get_name(), _SIMDGROUP)

    def get_current_device(self) -> int:
        """0: a Mac has one GPU."""
        return 0


class _Driver:
    """Where Triton finds its GPU."""

    _mps = _Active()

    @property
    def active(self) -> _Active:
        """The driver of the mps device. Raises RuntimeError where there is none, as Triton does without a GPU."""
        import torch

        if not torch.backends.mps.is_available():
            raise RuntimeError("0 active Triton drivers: this machine has no mps device (patch-for-mac shim)")
        return self._mps


driver = _Driver()
