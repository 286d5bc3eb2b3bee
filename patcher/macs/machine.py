"""Which machine this is, found without importing torch: chip, cores, memory, macOS; real or simulated."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """A Mac, real or simulated, or another machine.

    Attributes:
        system: ``platform.system()``: ``"Darwin"``, ``"Linux"``, ...
        chip: e.g. ``"Apple M3 Max"``; the processor's name elsewhere.
        gpu_cores: number of GPU cores, 0 if unknown.
        memory_bytes: installed memory.
        macos: major and minor version, None where it is no macOS and none is simulated.
        torch: version of the torch whose mps backend it is: the installed one, or the simulated Mac's; None where none
            is installed. What a change does to torch's Python code goes by the installed distribution instead.
        mps: whether torch can have an mps device here, real or simulated.
        cuda: whether an NVIDIA GPU and a torch build for it are present.
        simulated: whether the mps device is simulated.
    """

    system: str
    chip: str
    gpu_cores: int
    memory_bytes: int
    macos: tuple[int, int] | None
    torch: str | None
    mps: bool
    cuda: bool
    simulated: bool

    @property
    def generation(self) -> int | None:
        """The Apple silicon generation: 1 for M1; None for another chip."""
        head = self.chip.removeprefix("Apple M").split(" ")[0]
        return int(head) if self.chip.startswith("Apple M") and head.isdigit() else None

    def __str__(self) -> str:
        system = f"macOS {self.macos[0]}.{self.macos[1]}" if self.macos else self.system
        memory = f"{self.memory_bytes / 2**30:.0f} GB"
        return f"{self.chip}, {memory}, {system}" + (f" (simulated, torch {self.torch})" if self.simulated else "")


def detect(simulate: str | None = None) -> Machine:
    """Looks at the machine without importing torch.

    Args:
        simulate: a Mac to simulate, such as ``"M3 Max 36GB"``; None for the machine at hand. Where it names no torch,
            it has that of the Mac that is simulated in this process already, if one is.

    Raises:
        InvalidSwitch: ``simulate`` names no known Mac, or a torch that is not known.
    """
    torch = _torch_version()
    if simulate is not None:
        from patcher.macs.mac import parse
        from patcher.simulator.device import running

        device = running()
        mac = parse(simulate, device.torch if device is not None else None)
        return Machine(
            system=platform.system(),
            chip=mac.chip,
            gpu_cores=mac.gpu_cores,
            memory_bytes=mac.memory_bytes,
            macos=mac.macos,
            torch=torch and mac.torch,
            mps=True,
            cuda=_has_cuda(torch),
            simulated=True,
        )
    macos = _macos()
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    return Machine(
        system=platform.system(),
        chip=_chip(),
        gpu_cores=0,
        memory_bytes=_memory(),
        macos=macos,
        torch=torch,
        mps=apple and macos is not None and macos >= (14, 0),
        cuda=_has_cuda(torch),
        simulated=False,
    )


def _torch_version() -> str | None:
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None


def _macos() -> tuple[int, int] | None:
    """Major and minor number. A Python built for an older macOS is told 16 for 26, and so on: then Darwin's tells."""
    release = platform.mac_ver()[0]
    if not release:
        return None
    major, minor = _numbers(release)
    if 16 <= major < 26:
        darwin, minor = _numbers(platform.release())
        major = darwin + 1
    return major, minor


def _numbers(release: str) -> tuple[int, int]:
    """The first two numbers of ``"26.1.2"``."""
    major, _, rest = release.partition(".")
    return int(major), int(rest.partition(".")[0] or 0)


def _chip() -> str:
    if platform.system() == "Darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def _sysctl(name: str) -> str:
    library = ctypes.CDLL(None)
    size = ctypes.c_size_t(256)
    text = ctypes.create_string_buffer(size.value)
    failed = library.sysctlbyname(name.encode(), text, ctypes.byref(size), None, ctypes.c_size_t(0))
    return "" if failed else text.value.decode()


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0


def _has_cuda(torch: str | None) -> bool:
    if torch is None or "+cpu" in torch or platform.system() == "Darwin":
        return False
    return Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()
