"""Mathematical functions of the kernel language."""

from patcher.tiles.language import MATH_NAMES

globals().update(MATH_NAMES)
