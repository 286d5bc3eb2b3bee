"""The names of the kernel language, under the module where some libraries look for them."""

from patcher.tiles.language import NAMES as _NAMES

globals().update(_NAMES)
