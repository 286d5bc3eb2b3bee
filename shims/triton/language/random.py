"""Random numbers of the kernel language."""

from patcher.tiles.language import RANDOM_NAMES as _NAMES

globals().update(_NAMES)
