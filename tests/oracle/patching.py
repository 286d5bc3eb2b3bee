"""Applies this project's patches in the ``patched`` child, right after a target module has run."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
from collections.abc import Sequence
from types import ModuleType

from patcher.changes import catalogue
from patcher.engine.ledger import LEDGER
from patcher.engine.model import Patch, State

KERNELS = ("unsloth.kernels.", "unsloth_zoo.fused_losses.", "trl.")


def patches_by_module() -> dict[str, list[Patch]]:
    """Every patch of a kernel, by the module that holds its target, read from all data files."""
    found: dict[str, list[Patch]] = {}
    for change in catalogue():
        if isinstance(change, Patch) and change.module.startswith(KERNELS):
            found.setdefault(change.module, []).append(change)
    return found


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, patches: list[Patch]) -> None:
        self._loader = loader
        self._patches = patches

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        for patch in self._patches:
            entry = LEDGER.apply(patch, module)
            if entry.state is State.REFUSED:
                raise AssertionError(entry.detail)


class PatchOnImport(importlib.abc.MetaPathFinder):
    """Wraps the loader of every kernel module that this project patches."""

    def __init__(self) -> None:
        self._patches = patches_by_module()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self._patches:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._patches[name])
        return spec
