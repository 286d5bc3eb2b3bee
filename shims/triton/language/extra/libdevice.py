"""Mathematical functions of the device library."""

from patcher.tiles.language import LIBDEVICE_NAMES

globals().update(LIBDEVICE_NAMES)
