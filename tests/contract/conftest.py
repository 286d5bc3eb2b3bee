"""Shims under test are imported from the shims folder, and taken out again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from patcher.changes import changes_of
from patcher.engine.imports import Finder
from tests.process import answer, run_python

ANSWER_FOR = """
import json, sys
from patcher.engine.imports import Finder
from patcher.changes import changes_of
finder = Finder()
finder.shim(changes_of({shim!r} + '.shim')[0])
finder.install()
def answer(**values):
    print("ANSWER" + json.dumps(values))
"""


@pytest.fixture
def triton_shim() -> Iterator[None]:
    """``import triton`` gives the shim; nothing else in the process is touched."""
    yield from _shim(changes_of("triton.shim")[0])


@pytest.fixture
def bitsandbytes_shim() -> Iterator[None]:
    """``import bitsandbytes`` gives the shim, also where the real one is installed or imported."""
    yield from _shim(changes_of("bitsandbytes.shim")[0])


@pytest.fixture
def flash_attn_shim() -> Iterator[None]:
    """``import flash_attn`` gives the shim."""
    yield from _shim(changes_of("flash_attn.shim")[0])


def _shim(shim: Any) -> Iterator[None]:
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == shim.module}
    for name in before:
        del sys.modules[name]
    finder = Finder()
    finder.shim(shim)
    finder.install()
    try:
        yield
    finally:
        finder.remove()
        sys.modules.update(before)


@pytest.fixture(scope="session")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Runs Python in a fresh process with a shim in place; gives what it passed to ``answer(**values)``."""
    folder = tmp_path_factory.mktemp("ask")

    def run(shim: str, code: str, **environment: str) -> dict[str, Any]:
        script = ANSWER_FOR.format(shim=shim) + code
        found: dict[str, Any] = answer(run_python("-W", "ignore", "-c", script, cwd=folder, timeout=300, **environment))
        return found

    return run
