"""The machine and its Python."""

from __future__ import annotations

import importlib.util
import platform
from functools import partial

from patcher.macs.mac import GIB
from patcher.verify.check import INSTALL, Check, Failed, Situation, Skipped

OLDEST_MACOS = (14, 0)
SMALLEST_MEMORY = 8 * GIB


def chip(here: Situation) -> str:
    """Apple silicon, or a simulation of it."""
    machine = here.machine
    if not machine.chip.startswith(("Apple M", "VirtualApple")):
        raise Failed(f"{machine.chip}: the mps backend trains on Apple silicon only")
    cores = f", {machine.gpu_cores} GPU cores" if machine.gpu_cores else ""
    return f"{machine.chip}{cores}{' (simulated)' if machine.simulated else ''}"


def macos(here: Situation) -> str:
    """New enough for bf16."""
    found = here.machine.macos
    if found is None or found < OLDEST_MACOS:
        raise Failed(f"macOS {'.'.join(map(str, found or ()))}: bf16 and torch's mps backend need macOS 14")
    return f"macOS {found[0]}.{found[1]}"


def memory(here: Situation) -> str:
    """Enough unified memory for a small model."""
    size = here.machine.memory_bytes
    if size < SMALLEST_MEMORY:
        raise Failed(f"{size / GIB:.1f} GB")
    return f"{size / GIB:.0f} GB unified memory"


def python(here: Situation) -> str:
    """A Python for arm64, not one that Rosetta translates."""
    told = f"Python {platform.python_version()}, {platform.machine()}"
    if here.machine.simulated:
        raise Skipped(f"{told}: the simulated Mac runs the host's Python")
    if platform.machine() != "arm64":
        raise Failed(f"{told}: translated by Rosetta, or not Apple silicon; torch for it has no mps device")
    return told


def torch(here: Situation) -> str:
    """Nothing else can be checked without it."""
    if importlib.util.find_spec("torch") is None:
        raise Failed("torch is not installed for this Python")
    return "installed"


_check = partial(Check, "system")

CHECKS = (
    _check("chip", chip, "use a Mac with an M1 or later; on Linux try --simulate"),
    _check("macOS", macos, "update macOS to 14 or later (System Settings, General, Software Update)"),
    _check("memory", memory, "train a smaller model: 8 GB is the least that a useful one needs"),
    _check("Python", python, "install an arm64 Python (python.org, or Homebrew in /opt/homebrew) and make a new venv"),
    _check("torch", torch, INSTALL),
)
