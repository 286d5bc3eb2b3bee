"""Tiny libraries in tmp_path, patched by the real engine; nothing of them stays in the process."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from patcher.engine.ledger import LEDGER, Ledger
from patcher.engine.model import AnyChange, Patch, Upstream
from patcher.engine.session import Session
from patcher.macs.machine import Machine
from tests.machines import M3_MAX

OURS = "enginefixes"
"""The package that holds the replacements of these tests."""

UPSTREAM = Upstream("maker/lib", "lib.py", "f")


class Library:
    """Writes modules into a folder on sys.path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, module: str, source: str = "") -> None:
        """Writes ``module``; packages above it are made where they are missing."""
        *packages, name = module.split(".")
        folder = self.folder
        for package in packages:
            folder = folder / package
            folder.mkdir(exist_ok=True)
            if not (folder / "__init__.py").exists():
                (folder / "__init__.py").write_text("")
        as_package = folder / name / "__init__.py"
        (as_package if as_package.exists() else folder / f"{name}.py").write_text(source)
        importlib.invalidate_caches()

    def package(self, name: str, source: str = "") -> None:
        """Writes the package ``name`` with ``source`` as its ``__init__``."""
        folder = self.folder.joinpath(*name.split("."))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text(source)
        importlib.invalidate_caches()

    def distribution(self, name: str, version: str, *requires: str) -> None:
        """Writes the metadata with which ``importlib.metadata`` answers for ``name``."""
        info = self.folder / f"{name}-{version}.dist-info"
        info.mkdir()
        lines = [f"Requires-Dist: {requirement}\n" for requirement in requires]
        head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text("".join([head, *lines]))
        importlib.invalidate_caches()


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    """Modules written here can be imported, and are gone afterwards; unsloth counts as never imported."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in _GATED}
    before = set(sys.modules)
    yield Library(tmp_path)
    written = {path.stem for path in tmp_path.iterdir()}
    for name in set(sys.modules) - before:
        if name.split(".")[0] in written:
            del sys.modules[name]
    sys.modules.update(hidden)


_GATED = ("unsloth", "unsloth_zoo")


@pytest.fixture
def ledger() -> Ledger:
    """A ledger of its own."""
    return Ledger()


@pytest.fixture
def start(library: Library) -> Iterator[Callable[..., Session]]:
    """Starts a session with changes of the test's own; what stands at the end is undone."""
    before = list(sys.meta_path)

    def run(
        *changes: AnyChange, strict: bool = True, machine: Machine = M3_MAX, without: Sequence[str] = ()
    ) -> Session:
        session = Session(machine, changes, strict=strict, without=without)
        session.start()
        return session

    yield run
    try:
        LEDGER.undo()
    finally:
        assert sys.meta_path == before


def patch(target: str, replacement: str, **more: Any) -> Patch:
    """A patch of the distribution ``lib``, reviewed for 1.x."""
    text = {"why": "a test", "upstream": UPSTREAM, "until": "the test ends", "needed_for": "the test"}
    return Patch(
        target=target,
        replacement=f"{OURS}:{replacement}",
        **{"distribution": "lib", "reviewed": "==1.*", **text, **more},
    )
