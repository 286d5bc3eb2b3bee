"""Mathematical functions of the kernel language."""

from patcher.tiles.language import MATH_NAMES as _NAMES

globals().update(_NAMES)
