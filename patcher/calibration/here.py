"""Which Mac the process of a part runs on. On a real one nothing of the simulator is imported."""

from __future__ import annotations

import importlib

from patcher.calibration.facts import Facts

_SIMULATED: list[Facts] = []


def simulate(facts: Facts) -> None:
    """Lets the process run on a simulated Mac. To be called before anything asks for the device.

    Raises:
        SimulatorUnavailable: it cannot be built or started here.
    """
    importlib.import_module("torch")
    from patcher.simulator import start

    start(facts)
    _SIMULATED.append(facts)


def simulated() -> Facts | None:
    """The Mac that is simulated, or None on a real one."""
    return _SIMULATED[-1] if _SIMULATED else None
