"""The table in which torch.jit.script looks up, by identity, what a script calls; torch makes it at the first use."""

from __future__ import annotations

from types import ModuleType

from torch.jit._builtins import _get_builtin_table

from patcher.replacements.torch import cuda_device, factories
from patcher.replacements.torch.stand_in import StandIn

_table: dict[int, str] = _get_builtin_table()  # type: ignore[no-untyped-call]


def _names(module: ModuleType) -> dict[int, str]:
    """The name of the operator that each function of ``module`` which stands in for torch's has in TorchScript."""
    stand_ins = (value for value in vars(module).values() if type(value) is StandIn)
    named = ((stand_in, _table.get(id(stand_in.replaced))) for stand_in in stand_ins)
    return {id(stand_in): name for stand_in, name in named if name is not None}


_builtin_table = {**_table, **_names(cuda_device), **_names(factories)}
