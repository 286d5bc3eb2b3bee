"""Refusals of what has no counterpart on mps; the table is `patcher.changes.torch.cuda_library`."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NoReturn

from patcher.changes.torch.cuda_library import ABSENT, Absent
from patcher.errors import NotOnMac, compose


def _refusal(absent: Absent, target: str) -> Callable[..., NoReturn]:
    name = target.replace(":", ".")

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotOnMac(
            compose(
                f"{name}() belongs to {absent.of}, and this is a Mac", expected=absent.instead, left="nothing changed"
            )
        )

    return refuse


REFUSALS = SimpleNamespace(
    **{
        target.replace(".", "_").replace(":", "__"): _refusal(absent, target)
        for absent in ABSENT
        for target in absent.targets
    }
)
"""The function that raises NotOnMac in the place of each target, by the target's name with underscores."""
