"""Runs cases of one part in a process of their own: ``python -m patcher.calibration.worker MODULE OPTIONS``.

It writes the names of the part's cases as one line of JSON, then reads a name a line and writes what came of it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

from patcher.calibration import here
from patcher.calibration.facts import Facts
from patcher.calibration.words import said, without_paths
from patcher.verify.child import line_writer


def main() -> None:
    """Serves the module's cases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("--simulated", help="the Mac to simulate, as JSON of its facts")
    arguments = parser.parse_args()
    say = line_writer()
    try:
        part = _part(arguments.module, arguments.simulated)
        say({"cases": part.cases()})
    except Exception as error:  # noqa: BLE001 - whatever keeps it from starting is what the parent tells
        say({"failed": without_paths(f"{type(error).__name__}: {error}")})
        return
    for line in sys.stdin:
        say(_outcome(part.run, json.loads(line)))


def _part(module: str, simulated: str | None) -> Any:
    """The module that has the cases, imported when the device is there."""
    if simulated is not None:
        here.simulate(Facts.from_dict(json.loads(simulated)))
    return importlib.import_module(module)


def _outcome(run: Callable[[str], dict[str, object]], case: str) -> dict[str, object]:
    """What the part says of the case; what it raises is an outcome as well."""
    try:
        return run(case)
    except Exception as error:  # noqa: BLE001 - nobody knows what a device raises
        return {"outcome": "raised", "kind": type(error).__name__, "text": said(error)}


if __name__ == "__main__":
    main()
