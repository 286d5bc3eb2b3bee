"""The names of the kernel language, under the module where Triton has those that it writes in the language itself."""

from patcher.tiles.language import NAMES as _NAMES
from patcher.tiles.language import ConstexprFunction as _ConstexprFunction

globals().update(_NAMES)

_log2 = _ConstexprFunction(lambda i: i.bit_length() - 1)
