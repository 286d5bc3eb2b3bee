"""The table in which torch.jit.script looks up, by identity, what a script calls; torch makes it at the first use."""

from __future__ import annotations

import functools
import operator
from types import ModuleType, SimpleNamespace

from torch.jit._builtins import _get_builtin_table

from patcher.replacements.torch import cuda_device, factories, float64
from patcher.replacements.torch.stand_in import StandIn

_table: dict[int, str] = _get_builtin_table()  # type: ignore[no-untyped-call]


def _names(holder: ModuleType | SimpleNamespace) -> dict[int, str]:
    """The name of the operator that each function of ``holder`` which stands in for torch's has in TorchScript."""
    stand_ins = (value for value in vars(holder).values() if type(value) is StandIn)
    named = ((stand_in, _table.get(id(stand_in.replaced))) for stand_in in stand_ins)
    return {id(stand_in): name for stand_in, name in named if name is not None}


_HOLDERS: tuple[ModuleType | SimpleNamespace, ...] = (cuda_device, factories, float64.functions, float64.norms)
_builtin_table = functools.reduce(operator.or_, map(_names, _HOLDERS), _table)
