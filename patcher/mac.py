"""Which Macs can be simulated: chip, GPU cores and memory, from a text such as ``"M3 Max 36GB"``. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from patcher.errors import InvalidSwitch, compose

GIB = 2**30

DEFAULT = "M3 Max 36GB"
"""What ``UNSLOTH_SIMULATE_MAC=1`` stands for."""

MACOS = (15, 5)
"""The macOS that a simulated Mac answers with."""

CHIPS: dict[str, tuple[int, tuple[int, ...]]] = {
    "M1": (8, (8, 16)),
    "M1 Pro": (16, (16, 32)),
    "M1 Max": (32, (32, 64)),
    "M1 Ultra": (64, (64, 128)),
    "M2": (10, (8, 16, 24)),
    "M2 Pro": (19, (16, 32)),
    "M2 Max": (38, (32, 64, 96)),
    "M2 Ultra": (76, (64, 128, 192)),
    "M3": (10, (8, 16, 24)),
    "M3 Pro": (18, (18, 36)),
    "M3 Max": (40, (36, 48, 64, 96, 128)),
    "M3 Ultra": (80, (96, 256, 512)),
    "M4": (10, (16, 24, 32)),
    "M4 Pro": (20, (24, 48, 64)),
    "M4 Max": (40, (36, 48, 64, 128)),
    "M5": (10, (16, 24, 32)),
    "M5 Pro": (20, (24, 48, 64)),
    "M5 Max": (40, (36, 48, 64, 128)),
}
"""Chip to GPU cores of its largest variant and the memory sizes that Apple sells with it, in GB."""

_YES = {"1", "true", "yes", "on"}
_FORM = re.compile(
    r"(?:apple\s+)?(?P<family>m\d+)(?:[\s-]*(?P<tier>pro|max|ultra))?(?:[\s,]+(?P<memory>\d+)\s*(?:gb?|gib)?)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class MacProfile:
    """A Mac as far as training on it is concerned.

    Attributes:
        name: the short form that `parse` reads, e.g. ``"M3 Max 36GB"``.
        chip: what torch names the device, e.g. ``"Apple M3 Max"``.
        gpu_cores: number of GPU cores.
        memory_bytes: unified memory.
        macos: major and minor version.
    """

    name: str
    chip: str
    gpu_cores: int
    memory_bytes: int
    macos: tuple[int, int] = MACOS

    @property
    def recommended_max_bytes(self) -> int:
        """What ``torch.mps.recommended_max_memory()`` answers, in bytes."""
        return recommended_max_bytes(self.memory_bytes)


def recommended_max_bytes(memory_bytes: int) -> int:
    """The GPU's share of a Mac's memory: Metal's recommended working set, about 75 percent."""
    return memory_bytes // 4 * 3


def parse(text: str) -> MacProfile:
    """The Mac that a text names.

    Args:
        text: a chip with or without its memory in GB: ``"M3 Max 36GB"``, ``"apple m1"``, ``"M2 Pro, 32 GB"``. The
            smallest memory is taken where none is given. ``"1"`` is an M3 Max with 36 GB.

    Raises:
        InvalidSwitch: no such chip, or Apple does not sell it with that much memory.
    """
    wanted = DEFAULT if text.strip().lower() in _YES else text.strip()
    match = _FORM.fullmatch(wanted)
    chip = _chip_name(match) if match else ""
    if match is None or chip not in CHIPS:
        raise InvalidSwitch(
            compose(
                "there is no such Mac to simulate",
                expected=f"1, or a chip and its memory such as {DEFAULT!r}; chips: {', '.join(CHIPS)}",
                found=repr(text),
                run="set UNSLOTH_SIMULATE_MAC (or simulate=) to one of these",
            )
        )
    cores, sizes = CHIPS[chip]
    memory = int(match["memory"]) if match["memory"] else sizes[0]
    if memory not in sizes:
        raise InvalidSwitch(
            compose(
                f"no {chip} has {memory} GB of memory",
                expected=f"one of {', '.join(f'{size} GB' for size in sizes)}",
                found=repr(text),
                run=f"use for instance {f'{chip} {sizes[-1]}GB'!r}",
            )
        )
    return MacProfile(name=f"{chip} {memory}GB", chip=f"Apple {chip}", gpu_cores=cores, memory_bytes=memory * GIB)


def _chip_name(match: re.Match[str]) -> str:
    tier = match["tier"]
    return match["family"].upper() + (f" {tier.capitalize()}" if tier else "")
