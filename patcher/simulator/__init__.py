"""An mps device on Linux, so that what is meant for a Mac can be tried and tested without one.

    from patcher.simulator import start
    device = start("M3 Max 36GB")   # after `import torch`

Tensors on it are host memory, and every operator runs torch's CPU kernel on that memory; results are those of the CPU.
"""

from patcher.simulator.device import Device, running
from patcher.simulator.memory import Memory
from patcher.simulator.startup import start

__all__ = ["Device", "Memory", "running", "start"]
