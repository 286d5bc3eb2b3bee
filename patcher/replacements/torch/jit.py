"""What ``torch.jit.script`` finds under a function's identity, it finds under that of a stand-in too."""

from __future__ import annotations

from typing import Any

from patcher.engine.ledger import original
from patcher.engine.stand_in import replaced_by


def _find_builtin(fn: Any) -> Any:
    """The operator that a function stands for, e.g. ``"aten::tensor"``, or None."""
    return original("torch.jit._builtins:_find_builtin")(replaced_by(fn))
