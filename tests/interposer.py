"""Builds the library that ends a process at its n-th file operation, or lets its disk be full from there on."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

COUNT, KILL, FULL = 1, 2, 3


def library(folder: Path) -> Path:
    """The compiled library; a process has it with ``LD_PRELOAD``."""
    assert sys.platform == "linux", "LD_PRELOAD needs Linux"
    compiler = shutil.which("cc") or shutil.which("c++")
    assert compiler, "a C compiler is needed: apt-get install g++"
    target = folder / "interpose.so"
    source = Path(__file__).with_name("interpose.c")
    command = [compiler, "-x", "c", "-O1", "-shared", "-fPIC", "-o", str(target), str(source), "-ldl"]
    subprocess.run(command, check=True, timeout=120)
    return target


class Interposer:
    """The library within the process into which it was preloaded."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.operations.restype = ctypes.c_char_p
        self._library.disarm.restype = ctypes.c_long

    def arm(self, mode: int, operation: int = 0) -> None:
        """Counts from now on; ``KILL`` and ``FULL`` act at the given operation, the first one being 1."""
        self._library.arm(mode, ctypes.c_long(operation))

    def disarm(self) -> int:
        """Ends counting; gives the number of operations since `arm`."""
        return int(self._library.disarm())

    def operations(self) -> list[str]:
        """The names of the operations counted since `arm`, where its mode was ``COUNT``."""
        return bytes(self._library.operations()).decode().split()
