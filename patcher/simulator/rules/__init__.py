"""What a Mac's mps device refuses and what it sends to the CPU; counts of both.

Which operators exist is read from the installed torch (presence.py); what that list does not tell is in one data file
per torch release (``torch_2_13.toml``), read by tables.py; native/rules.cpp applies it.
"""

from __future__ import annotations

from types import ModuleType

from patcher.simulator.rules import presence, tables


class Rules:
    """What the simulated Mac has refused since the start or the last `reset`."""

    def __init__(self, native: ModuleType) -> None:
        self._native = native

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


def load(native: ModuleType, torch: ModuleType) -> None:
    """Hands the rules of the installed torch to the device, before its first operator."""
    table = tables.for_torch(torch.__version__)
    with presence.native_functions().open(encoding="utf-8") as lines:
        listed = lines.readlines()
    present = {f"aten::{name}" for name in presence.with_kernel(listed)}
    native.register_sparse(sorted(presence.with_kernel(listed, "SparseMPS")))
    native.load_rules(
        present=sorted((present | set(table.present)) - set(table.absent)),
        on_cpu=sorted(table.on_cpu),
        refusals=[refusal.native(torch) for refusal in table.refusals],
        commit=str(torch.version.git_version),
        cpu_fallback=tables.fallback_wanted(),
    )
