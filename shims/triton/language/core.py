"""The names of the kernel language, under the module where some libraries look for them."""

from patcher.tiles.language import NAMES as _NAMES
from patcher.tiles.language import constexpr as _constexpr

globals().update(_NAMES)

CONSTEXPR_0 = _constexpr(0)
