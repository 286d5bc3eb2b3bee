"""What a simulated device knows at the end of a trial, as plain data: the one place that asks it."""

from __future__ import annotations

import dataclasses
from typing import Any

from patcher.macs.mac import MacProfile

MOST_SAMPLES = 1000


class Samples:
    """Memory over time in at most `MOST_SAMPLES` points: when they are full, every second one goes."""

    def __init__(self) -> None:
        self.points: list[tuple[float, int]] = []
        self._every = 1
        self._seen = 0

    def add(self, seconds: float, current: int) -> None:
        """One more measurement, in bytes."""
        self._seen += 1
        if self._seen % self._every:
            return
        self.points.append((round(seconds, 3), current))
        if len(self.points) >= MOST_SAMPLES:
            del self.points[1::2]
            self._every *= 2


class Watched:
    """The device of this process, and what listens to it."""

    def __init__(self, mac: MacProfile) -> None:
        from patcher.simulator import start
        from patcher.simulator.meter import Meter
        from patcher.simulator.places import Places

        self._mac = mac
        self._device = start(mac)
        self._places = Places()
        self._places.attach(self._device.native)
        self._meter = Meter().__enter__()

    def account(self) -> dict[str, Any]:
        """Memory, operators, refusals with their places, faults, and what was used."""
        from patcher.simulator.estimate import ERROR, estimate

        counts = self._device.operator_counts()
        usage = self._meter.usage()
        memory = dataclasses.asdict(self._device.memory())
        # A script may let the device's own peaks start again; the meter's go on.
        memory["peak"] = max(memory["peak"], usage.peak_bytes)
        memory["peak_driver"] = max(memory["peak_driver"], usage.reserved_bytes)
        return {
            "memory": memory,
            "recommended": self._mac.recommended_max_bytes,
            "operators": sum(counts.values()),
            "sightings": [dataclasses.asdict(sighting) for sighting in self._places.sightings()],
            "faults": list(self._device.faults),
            "usage": usage.to_dict(),
            "estimate": {**estimate(usage, self._mac).to_dict(), "error": ERROR},
        }


def watch(mac: MacProfile) -> Watched:
    """Starts the device where nobody has, and listens to it."""
    return Watched(mac)


def patches() -> dict[str, Any]:
    """The report of `patch_for_mac` in short."""
    from patcher import report
    from patcher.engine.model import State

    found = report()
    refused = [(e.change.key, e.detail) for e in found.entries if e.state is State.REFUSED]
    return {
        "inactive": found.inactive,
        "counts": found.counts(),
        "refused": refused,
        "rewrites": [list(row) for row in found.rewrites],
        "notes": list(found.notes),
    }
