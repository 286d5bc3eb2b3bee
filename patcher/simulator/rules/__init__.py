"""What a Mac's mps device refuses and what it sends to the CPU; counts of both.

Which operators exist on a Mac was read from torch's wheel for macOS (`patcher.simulator.wheels`); what that does not
tell is in one data file per torch release (``torch_2_13.toml``), read by tables.py; native/rules.cpp applies it.
"""

from __future__ import annotations

import importlib.metadata
from types import ModuleType

from patcher.macs.mac import release_of
from patcher.simulator.rules import tables
from patcher.simulator.wheels import records

INDICES = {"int", "long"}
"""What a kernel such as gather's reads by its name is the index; its numbers are of any dtype."""


class Rules:
    """What the simulated Mac has refused since the start or the last `reset`."""

    def __init__(self, native: ModuleType, torch: str) -> None:
        """``torch`` is the version that the Mac has."""
        self._native = native
        self._torch = torch

    @property
    def missing(self) -> dict[str, int]:
        """Operators without an mps kernel that raised NotImplementedError, and how often."""
        return dict(self._native.rules_missing())

    @property
    def fell_back(self) -> dict[str, int]:
        """Operators without an mps kernel that ran on the CPU, and how often."""
        return dict(self._native.rules_fell_back())

    @property
    def float64(self) -> int:
        """How often something would have made a float64 or complex128 tensor on mps."""
        return int(self._native.rules_float64())

    @property
    def refused(self) -> dict[str, int]:
        """Other refusals, by the name of the rule: dtypes, sizes, mixed dtypes."""
        return dict(self._native.rules_refused())

    @property
    def only_on_a_mac(self) -> list[str]:
        """Operators of the Mac's torch that the torch which computes here has not: no script can call them here."""
        return sorted(_of(self._torch) - _of(_engine()))

    @property
    def not_on_a_mac(self) -> list[str]:
        """Operators of the torch which computes here that the Mac's torch has not any more: they are refused."""
        return sorted(_of(_engine()) - _of(self._torch))

    @property
    def cpu_fallback(self) -> bool:
        """Whether operators without an mps kernel run on the CPU.

        At the start it is what ``PYTORCH_ENABLE_MPS_FALLBACK`` says. A Mac reads that once, when torch is loaded.
        """
        return bool(self._native.cpu_fallback())

    @cpu_fallback.setter
    def cpu_fallback(self, enabled: bool) -> None:
        self._native.set_cpu_fallback(enabled)

    def reset(self) -> None:
        """Lets everything be counted from zero."""
        self._native.rules_reset()


def load(native: ModuleType, torch: ModuleType, version: str) -> None:
    """Hands the rules of a Mac's torch to the device, before its first operator.

    Args:
        native: the C++ module.
        torch: the torch that computes.
        version: of the torch that the Mac has.
    """
    table, wheel = tables.for_torch(version), records.record(release_of(version))
    gone = {f"aten::{name}" for name in _of(torch.__version__) - wheel.functions()}
    present = {f"aten::{name}" for name in wheel.with_kernel()} | gone
    refusals = [*table.refusals, *([tables.gone(gone, version)] if gone else [])]
    if "linalg_lu_solve.out" in wheel.with_kernel() and hasattr(torch._refs.linalg, "mps_lib"):
        torch._refs.linalg.mps_lib._destroy()  # torch 2.13's own kernel for mps, in Python; later ones have it in Metal
    native.register_sparse(sorted(wheel.with_kernel("SparseMPS") & _of(torch.__version__)))
    native.load_rules(
        present=sorted((present | set(table.present)) - set(table.absent)),
        on_cpu=sorted(table.on_cpu),
        refusals=[refusal.native(torch) for refusal in refusals],
        commit=wheel.commit,
        cpu_fallback=tables.fallback_wanted(),
        kernels={family: set(types) for family, types in wheel.types().items() if not set(types) <= INDICES},
    )


def _of(version: str) -> set[str]:
    """The operators of a torch."""
    return records.record(release_of(version)).functions()


def _engine() -> str:
    """The version of the torch that computes."""
    return importlib.metadata.version("torch")
