"""Why the engine does not stand on wrapt: what wrapt does in three cases, and what the engine does in the same ones."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable
from typing import Any

import pytest

from patcher.engine.ledger import LEDGER
from patcher.engine.session import Session
from patcher.errors import RefusedChange
from tests.engine.conftest import OURS, Library, patch
from tests.process import run_python

Start = Callable[..., Session]
SOURCE = "def f(a):\n    return 'original'\n"
WRAP = """
import importlib, inspect, json, wrapt
def wrap(module):
    wrapt.wrap_function_wrapper(module, "f", lambda wrapped, instance, args, kwargs: "replaced")
"""


@pytest.fixture(autouse=True)
def lib(library: Library) -> None:
    """A library with one function, and a replacement for it."""
    library.write("lib", SOURCE)
    library.write(OURS, "def f(a):\n    return 'replaced'\n")


def by_wrapt(library: Library, code: str) -> Any:
    """What ``code`` prints as JSON, in a process of its own: wrapt's finder cannot be taken off."""
    return json.loads(run_python("-c", WRAP + code, PYTHONPATH=str(library.folder)).stdout)


def test_source_is_that_of_what_runs(library: Library, start: Start) -> None:
    """Upstream reads sources and executes them: wrapt's wrapper gives the original's, a replacement its own."""
    code = "import lib; wrap(lib)\nprint(json.dumps([lib.f(1), inspect.getsource(lib.f)]))"
    assert by_wrapt(library, code) == ["replaced", SOURCE]
    start(patch("lib:f", "f"))
    assert "'replaced'" in inspect.getsource(importlib.import_module("lib").f)


def test_what_a_hook_raised_is_raised_again(library: Library, start: Start) -> None:
    """A library that swallows the first error imports once more: wrapt has dropped the hook by then."""
    code = """
def hook(module):
    raise ValueError("of another shape")
wrapt.register_post_import_hook(hook, "lib")
said = []
for _ in range(2):
    try:
        said.append(importlib.import_module("lib").f(1))
    except ValueError as error:
        said.append(str(error))
print(json.dumps(said))
"""
    assert by_wrapt(library, code) == ["of another shape", "original"]
    start(patch("lib:f", "f", expects="(b)"))
    for _ in range(2):
        with pytest.raises(RefusedChange, match=r"lib:f"):
            importlib.import_module("lib")


def test_reloading_and_undoing(library: Library, start: Start) -> None:
    """wrapt's wrapper is lost by importlib.reload, and stays in a module that has copied it; the ledger knows both."""
    library.write("user", "from lib import f")
    code = """
wrapt.register_post_import_hook(wrap, "lib")
import lib, user
wrapt.unwrap_object(lib, "f", lib.f)
undone = [lib.f(1), user.f(1)]
wrap(lib)
print(json.dumps([undone, [lib.f(1), importlib.reload(lib).f(1)]]))
"""
    assert by_wrapt(library, code) == [["original", "replaced"], ["replaced", "original"]]
    start(patch("lib:f", "f"))
    lib, user = importlib.import_module("lib"), importlib.import_module("user")
    assert lib.f(1) == importlib.reload(lib).f(1) == "replaced"
    LEDGER.undo()
    assert lib.f(1) == user.f(1) == "original"
