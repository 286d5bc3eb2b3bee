"""The kernel language's functions, in terms of a program's operations."""

from patcher.tiles.library import assembly as assembly
from patcher.tiles.library import control as control
from patcher.tiles.library import elementwise as elementwise
from patcher.tiles.library import libdevice as libdevice
from patcher.tiles.library import mapped as mapped
from patcher.tiles.library import memory as memory
from patcher.tiles.library import random as random
from patcher.tiles.library import reductions as reductions
from patcher.tiles.library import scaled as scaled
from patcher.tiles.library import shapes as shapes
from patcher.tiles.library.registry import FUNCTIONS, METHODS

__all__ = ["FUNCTIONS", "METHODS"]
