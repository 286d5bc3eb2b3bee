"""The Mac that tests of pure functions are about; others are made of it with dataclasses.replace."""

from __future__ import annotations

from patcher.macs.machine import Machine

M3_MAX = Machine(
    system="Darwin",
    chip="Apple M3 Max",
    gpu_cores=40,
    memory_bytes=36 * 2**30,
    macos=(15, 5),
    torch="2.13.0",
    mps=True,
    cuda=False,
    simulated=False,
)
