"""Runs block programs as Metal shaders on mps.

A program of the grid is a threadgroup. The elements of its blocks lie in registers of its threads (`layouts`), or are
computed where they are needed (`forms`); they change threads through simdgroup shuffles and threadgroup memory.
"""

from patcher.tiles.on_metal.emitter import Shader
from patcher.tiles.on_metal.names import NotOnMetal
from patcher.tiles.on_metal.run import Launcher, launcher_of, overlapping, refuse, run, why_not

__all__ = ["Launcher", "NotOnMetal", "Shader", "launcher_of", "overlapping", "refuse", "run", "why_not"]
