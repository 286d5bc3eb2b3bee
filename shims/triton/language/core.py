"""The names of the kernel language, under the module where some libraries look for them."""

from patcher.tiles.classes import aggregate_replace as aggregate_replace
from patcher.tiles.classes import must_use_result as must_use_result
from patcher.tiles.language import NAMES as _NAMES
from patcher.tiles.language import TYPES as _TYPES
from patcher.tiles.language import ConstexprFunction as _ConstexprFunction
from patcher.tiles.language import builtin as builtin
from patcher.tiles.language import constexpr as _constexpr

globals().update(_NAMES)

CONSTEXPR_0 = _constexpr(0)


@_ConstexprFunction
def get_int_dtype(bitwidth: int, signed: bool) -> object:
    """The whole numbers of so many bits. Raises ValueError where there are none."""
    name = f"{'' if signed or bitwidth == 1 else 'u'}int{bitwidth}"
    if name not in _TYPES:
        raise ValueError(f"Unsupported bitwidth {bitwidth} and signedness {signed}")
    return _TYPES[name]
