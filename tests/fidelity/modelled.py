"""What the simulated Mac's model expects of each timing of a calibration, on the Mac that is simulated.

`patcher.calibration.worker` runs it. See docs/meter.md for the model and its error.
"""

from __future__ import annotations

from typing import Any

from patcher.calibration.timings import TIMINGS
from patcher.macs.mac import GIB, parse
from patcher.simulator.device import running
from patcher.simulator.estimate import estimate
from patcher.simulator.meter import Meter


def cases() -> list[str]:
    """The timings by name."""
    return list(TIMINGS)


def run(case: str) -> dict[str, Any]:
    """``seconds`` of one call. Raises InvalidSwitch for a Mac whose rates are not known."""
    device = running()
    assert device is not None
    mac = device.mac
    profile = parse(f"{mac.chip.removeprefix('Apple ')} {mac.gpu_cores}-core {mac.memory_bytes // GIB}GB")
    batch = TIMINGS[case].batch()
    with Meter(modules=False) as meter:
        batch()
    return {"seconds": estimate(meter.usage(), profile).seconds / TIMINGS[case].calls}
