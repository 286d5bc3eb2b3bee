"""``triton.language``: the names of the kernel language. They mean something in a kernel, and nothing outside."""

from patcher.tiles.classes import aggregate_replace as aggregate_replace
from patcher.tiles.language import NAMES as _NAMES
from triton.language import core as core
from triton.language import extra as extra
from triton.language import math as math
from triton.language import random as random
from triton.language import standard as standard

globals().update(_NAMES)

__all__ = sorted((*_NAMES, "aggregate_replace"))
