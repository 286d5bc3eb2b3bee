"""The simulated device of this process: which Mac it is and what it holds. `startup` starts it."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING

from patcher.errors import SimulatorUnavailable, compose
from patcher.macs.mac import DEFAULT, max_buffer_bytes, parse, recommended_max_bytes
from patcher.simulator import rules
from patcher.simulator.memory import Memory, watermarks

if TYPE_CHECKING:
    from patcher.simulator.torch_mps import Mac


class Device:
    """The simulated mps device of this process."""

    def __init__(self, native: ModuleType, torch: str) -> None:
        """
        Args:
            native: the C++ module, which has the rules of that torch.
            torch: version of the Mac's torch, for as long as the process lives.
        """
        self._native = native
        self.torch = torch
        self.mac: Mac = parse(DEFAULT, torch)
        self.rules = rules.Rules(native, torch)
        self.faults: tuple[str, ...] = ()
        """The names of the faults that are switched on; see `patcher.simulator.faults`."""

    @property
    def native(self) -> ModuleType:
        """The C++ module."""
        return self._native

    def become(self, mac: Mac) -> None:
        """Takes on another Mac's name, cores, macOS and memory limit. Live tensors stay.

        Raises:
            SimulatorUnavailable: it has another torch.
        """
        from patcher.simulator import torch_mps

        if mac.torch != self.torch:
            raise SimulatorUnavailable(
                compose(
                    "the torch of a simulated Mac cannot change while the process runs",
                    expected=f"torch {self.torch}",
                    found=f"torch {mac.torch}",
                    left=f"the Mac is the one that it was, with torch {self.torch}",
                    run="name the torch where the Mac is started first, or start another process",
                )
            )
        self.mac = mac
        self._native.set_macos(*(mac.macos or (0, 0)))
        high, low = watermarks()
        self._native.set_memory_limits(
            recommended_max_bytes(mac.memory_bytes, mac.macos), max_buffer_bytes(mac.memory_bytes, mac.macos), high, low
        )
        torch_mps.name_device(mac)

    def memory(self) -> Memory:
        """Bytes held now and at the peaks, as tensors and as torch's allocator on a Mac would hold them."""
        return Memory(**self._native.memory())

    def reset_peak(self) -> None:
        """Lets the peaks start again from what is held now."""
        self._native.reset_peak_memory()

    def set_faults(self, names: tuple[str, ...], sizes: Mapping[str, int]) -> None:
        """Replaces what is switched on; `patcher.simulator.faults.inject` is what to use.

        Args:
            names: of every fault.
            sizes: those that the C++ module carries out, with the sizes from which they show.
        """
        self._native.set_faults(dict(sizes))
        self.faults = names

    @property
    def products(self) -> dict[str, str]:
        """By half-precision dtype, what computes matrix products, convolutions and attention.

        ``"native"``: torch's CPU kernels for the dtype. ``"float32"``: a product of float32 copies, rounded once, where
        torch would not use oneDNN's kernels for the dtype: without AVX-512 or AMX, or `torch.backends.mkldnn` off.
        """
        return dict(self._native.products())

    def set_products(self, computed: str) -> None:
        """Makes both dtypes ``"native"`` or ``"float32"``, or lets the ``"host"`` decide again. For tests."""
        self._native.set_products(computed)

    def operator_counts(self) -> dict[str, int]:
        """How often each operator ran on the device since the start or the last reset."""
        counts: dict[str, int] = self._native.operator_counts()
        return counts

    def reset_operator_counts(self) -> None:
        """Lets the operators be counted from zero."""
        self._native.reset_operator_counts()


_RUNNING: list[Device] = []
"""At most one device: what torch has registered cannot be taken back."""


def running() -> Device | None:
    """The device of this process, or None if it has not been started."""
    return _RUNNING[0] if _RUNNING else None


def become_running(device: Device) -> None:
    """Makes ``device`` the one of this process."""
    _RUNNING.append(device)
