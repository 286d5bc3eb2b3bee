"""Every change, one file per module of an upstream library; data only, so that reading it imports nothing heavy."""

from __future__ import annotations

import importlib
import pkgutil

from patcher.model import AnyChange


def catalogue() -> tuple[AnyChange, ...]:
    """Every change of every file in this folder, in the order of the file names."""
    found: list[AnyChange] = []
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        found.extend(importlib.import_module(f"{__name__}.{info.name}").CHANGES)
    return tuple(found)
