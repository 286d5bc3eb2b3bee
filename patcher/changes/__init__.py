"""Every change: a folder per library, a file per module of it; data only, so that reading it imports nothing heavy."""

from __future__ import annotations

import importlib
import pkgutil

from patcher.engine.model import AnyChange


def files() -> tuple[str, ...]:
    """The files of changes as ``"torch.cuda"``, in the order of their names."""
    found = pkgutil.walk_packages(__path__, prefix := f"{__name__}.")
    return tuple(sorted(info.name.removeprefix(prefix) for info in found if not info.ispkg))


def changes_of(file: str) -> tuple[AnyChange, ...]:
    """The changes of a file, which is named as `files` names it."""
    changes: tuple[AnyChange, ...] = importlib.import_module(f"{__name__}.{file}").CHANGES
    return changes


def catalogue() -> tuple[AnyChange, ...]:
    """Every change of every file, in the order of the files."""
    return tuple(change for file in files() for change in changes_of(file))
