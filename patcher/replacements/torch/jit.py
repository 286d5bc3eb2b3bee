"""What ``torch.jit.script`` finds under a function's identity, it finds under that of a stand-in too."""

from __future__ import annotations

from typing import Any

from patcher.engine.ledger import original
from patcher.engine.stand_in import replaced_by
from patcher.replacements.torch.device_types import DeviceType


def _find_builtin(fn: Any) -> Any:
    """The operator that a function or class stands for, e.g. ``"aten::tensor"``, or None."""
    function = fn.replaced if type(fn) is DeviceType else replaced_by(fn)
    return original("torch.jit._builtins:_find_builtin")(function)
