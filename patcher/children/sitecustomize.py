"""Patches a child process of a program under ``python -m patcher run``; `site` imports it when the child starts.

It stands before a ``sitecustomize`` of the user's, so it runs that first. Python of another environment is left alone.
"""

import importlib.util
import json
import os
import sys
from importlib.machinery import PathFinder


def _run_that_of_the_user() -> None:
    """What ``import sitecustomize`` would have run, in this module's name; the import path is then the user's."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != here]
    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        globals().update({name: value for name, value in vars(module).items() if not name.startswith("__")})


def _patch(order: dict[str, object]) -> None:
    if order["prefix"] != sys.prefix:
        return
    root = str(order["root"])
    on_path = root in sys.path
    if not on_path:
        sys.path.append(root)
    try:
        from patcher import patch_for_mac
        from patcher.errors import PatcherError

        try:
            patch_for_mac(strict=bool(order["strict"]), verbose=bool(order["verbose"]) or None)
        except PatcherError as error:
            # site would print one line about an exception and let the program run unpatched.
            sys.stderr.write(f"{error}\n")
            sys.stderr.flush()
            os._exit(2)
    finally:
        if not on_path:
            sys.path.remove(root)


try:
    _run_that_of_the_user()
finally:  # site prints what it raised, and goes on
    if "PATCHER_RUN" in os.environ:  # noqa: TID251 - this file must not need the package, which may not be importable
        _patch(json.loads(os.environ["PATCHER_RUN"]))  # noqa: TID251
