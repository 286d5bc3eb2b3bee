"""Runs one group of checks and writes what happens as JSON lines: ``python -m patcher.verify.child GROUP OPTIONS``."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from patcher import patch_for_mac
from patcher.errors import PatcherError
from patcher.macs import machine
from patcher.verify.check import Result, Situation, Status

CANNOT_GO_ON = 3
"""Exit code after a failure that every other group would meet too."""

MODULES = {
    "system": ("system",),
    "device": ("device",),
    "kernels": ("kernels", "variants", "hazards"),
    "training": ("training",),
    "libraries": ("libraries",),
}
"""Groups, in the order in which they run, and the modules of `patcher.verify` that hold their checks."""


def main() -> None:
    """Patches, then runs the checks of the group."""
    arguments = _parser().parse_args()
    say = line_writer()
    here = Situation(machine.detect(arguments.simulate), arguments.full, arguments.work)
    if arguments.group != "system":
        _patch(arguments.simulate, say)
    for module in MODULES[arguments.group]:
        for check in importlib.import_module(f"patcher.verify.{module}").CHECKS:
            if here.full or not check.full:
                say({"begin": {"section": check.section, "name": check.name}})
                say({"result": check.run(here).to_dict()})


def _patch(simulate: str | None, say: Callable[[dict[str, object]], None]) -> None:
    """Patches and imports torch, which starts a simulated device; leaves with `CANNOT_GO_ON` where that fails."""
    try:
        patch_for_mac(simulate=simulate, strict=False)
        importlib.import_module("torch")
    except (PatcherError, ImportError) as error:
        found = Result(
            "patches", "patch_for_mac()", Status.FAIL, str(error), "as the message says; then run this again"
        )
        say({"result": found.to_dict()})
        sys.exit(CANNOT_GO_ON)


def line_writer() -> Callable[[dict[str, object]], None]:
    """Keeps the real standard output for JSON lines; what libraries print there, in C too, goes to standard error."""
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(data: dict[str, object]) -> None:
        lines.write(json.dumps(data) + "\n")
        lines.flush()

    return say


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("group", choices=list(MODULES))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--simulate")
    parser.add_argument("--full", action="store_true")
    return parser


if __name__ == "__main__":
    main()
