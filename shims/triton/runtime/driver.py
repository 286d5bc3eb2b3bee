"""The driver of the GPU that kernels run on: that of torch's mps device, where there is one."""

from __future__ import annotations

from typing import Any, NamedTuple

_THREADGROUP_BYTES = 32 * 1024
"""Threadgroup memory that a threadgroup may use, on every Apple GPU."""
_SIMDGROUP = 32
"""Threads of a simdgroup."""
_REGISTERS = 64 * 1024
"""Registers that threads share, as a number. Metal tells none, but how many threads of a kernel have enough of them."""
_CACHE_BYTES = 128 << 20
"""More than the last cache of any Apple chip holds (96 MiB, M2 Ultra)."""


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
        """What kernels' blocks and grids are chosen by.

        Bytes of threadgroup memory, registers as `_REGISTERS` says, GPU cores, threads of a simdgroup.
        """
        import torch

        return {
            "max_shared_mem": _THREADGROUP_BYTES,
            "max_num_regs": _REGISTERS,
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

    def get_active_torch_device(self) -> Any:
        """torch's device for it."""
        import torch

        return torch.device("mps", 0)

    def get_device_interface(self) -> Any:
        """The module with ``Event``, ``synchronize`` and their like: ``torch.cuda``, which answers for mps."""
        import torch

        return torch.cuda

    def get_current_stream(self, device: Any = None) -> int:
        """0: mps has one queue."""
        return 0

    def get_benchmarker(self) -> Any:
        """What times a function: `triton.testing.do_bench`."""
        from triton.testing import do_bench

        return do_bench

    def get_empty_cache_for_benchmark(self) -> Any:
        """Memory to write over between runs that are timed, so that each begins with cold caches."""
        import torch

        return torch.empty(_CACHE_BYTES, dtype=torch.int8, device=self.get_active_torch_device())

    def clear_cache(self, cache: Any) -> None:
        """Writes over it."""
        cache.zero_()


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
