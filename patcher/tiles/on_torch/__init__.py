"""Runs block programs with torch operators on any device: slow, and the reference for every other back end.

A value is a tensor whose first axis is that of the programs, of extent 1 where all have the same, before the block's
axes. Programs of a grid run side by side, in portions that bound the memory; where their ways part, both ways are
gone under masks.
"""

from patcher.tiles.on_torch.executor import run
from patcher.tiles.on_torch.shaken import run_counted, run_shaken

__all__ = ["run", "run_counted", "run_shaken"]
