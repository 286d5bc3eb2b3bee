"""Mathematical functions of the device library."""

from patcher.tiles.language import LIBDEVICE_NAMES as _NAMES

globals().update(_NAMES)
