"""Which Mac a calibration is of: what decides how it computes, and nothing that tells whose it is. Imports no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Facts:
    """A Mac, as `patcher.simulator.start` takes it, and the Python that was used.

    Attributes:
        chip: e.g. ``"Apple M3 Max"``.
        gpu_cores: number of GPU cores.
        memory_bytes: installed memory.
        macos: major and minor version.
        torch: version of the torch whose mps backend it is.
        python: version of Python.
        patcher: version of this package.
        simulated: whether the Mac is simulated.
    """

    chip: str
    gpu_cores: int
    memory_bytes: int
    macos: tuple[int, int]
    torch: str
    python: str
    patcher: str
    simulated: bool

    def __str__(self) -> str:
        kind = "simulated " if self.simulated else ""
        return (
            f"{kind}{self.chip}, {self.gpu_cores} GPU cores, {self.memory_bytes / 2**30:g} GB, "
            f"macOS {self.macos[0]}.{self.macos[1]}, torch {self.torch}, Python {self.python}"
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**dataclasses.asdict(self), "macos": list(self.macos)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Facts:
        """From JSON. Raises TypeError, ValueError or KeyError for what is not of these types."""
        macos = data["macos"]
        if len(macos) != 2:
            raise ValueError(f"macos is {macos!r}")
        made = cls(**{**data, "macos": (int(macos[0]), int(macos[1]))})
        for field in dataclasses.fields(cls):
            value = getattr(made, field.name)
            if type(value).__name__ != field.type.partition("[")[0]:
                raise TypeError(f"{field.name} is {value!r}")
        return made
