#!/usr/bin/env python3
"""Checks whether this Mac, or a simulated one, trains right:

    python verify_apple.py
    python verify_apple.py --simulate "M3 Max 36GB"     # on Linux
    python verify_apple.py --calibrate                  # measures what it does, into a file to send

Exit code: 0 if everything passed, 1 if a check failed, 2 if it was called wrongly (Linux without --simulate).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from patcher import environment
from patcher.calibration import command
from patcher.calibration.parts import BY_NAME
from patcher.errors import PatcherError, compose
from patcher.macs import machine
from patcher.macs.machine import Machine
from patcher.verify import parent
from patcher.verify.child import MODULES
from patcher.verify.output import Lines, passed, to_json

WRONG_USE = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the checks that the arguments ask for; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    _check_combination(parser, arguments)
    try:
        simulate = arguments.simulate or environment.switches().simulate
        here = machine.detect(simulate)
    except PatcherError as error:
        return _wrong_use(str(error))
    if here.system != "Darwin" and not here.simulated:
        return _wrong_use(_no_mac(here))
    if arguments.calibrate is not None:
        return _calibrate(arguments, here)
    with tempfile.TemporaryDirectory(prefix="verify-apple-") as work:
        groups = tuple(arguments.group or MODULES)
        plan = parent.Plan(Path(work), simulate, arguments.full, groups)
        try:
            return _check(plan, here, as_json=arguments.json)
        except KeyboardInterrupt:
            return INTERRUPTED


def _check(plan: parent.Plan, here: Machine, *, as_json: bool) -> int:
    began = time.perf_counter()
    lines = Lines(Console(stderr=as_json))
    results = []
    for result in parent.run(plan, lines.begin):
        results.append(result)
        lines.show(result)
    seconds = time.perf_counter() - began
    lines.end(results, seconds)
    if as_json:
        print(to_json(here, results, seconds))
    return 0 if passed(results) else 1


def _calibrate(arguments: argparse.Namespace, here: Machine) -> int:
    order = command.Order(
        file=Path(arguments.calibrate) if arguments.calibrate else None,
        parts=tuple(arguments.part or BY_NAME),
        sample=arguments.sample or 1,
        simulated=command.facts_of(here) if here.simulated else None,
    )
    return command.run(order, Console())


def _check_combination(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Leaves, as for every wrong option, where options of checks and of calibrations are mixed."""
    checks = {"--full": arguments.full, "--json": arguments.json, "--group": arguments.group}
    calibrations = {"--part": arguments.part, "--sample": arguments.sample}
    calibrates = arguments.calibrate is not None
    for name, given in (checks if calibrates else calibrations).items():
        if given:
            parser.error(f"{name} {'has no meaning with' if calibrates else 'needs'} --calibrate")


def _no_mac(here: Machine) -> str:
    return compose(
        "this is no Mac",
        found=str(here),
        expected="a Mac with Apple silicon, or a simulated one",
        run=f"python {sys.argv[0]} --simulate 'M3 Max 36GB'",
    )


def _wrong_use(message: str) -> int:
    print(message, file=sys.stderr)
    return WRONG_USE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Checks whether this Mac, or a simulated one, trains right.")
    parser.add_argument(
        "--simulate",
        nargs="?",
        const="1",
        metavar="MAC",
        help="check a simulated Mac (on Linux), such as 'M3 Max 36GB'; without a name an M3 Max with 36 GB",
    )
    parser.add_argument(
        "--full", action="store_true", help="long: all dtypes, all probes; a missing library is a failure"
    )
    parser.add_argument("--skip-downloads", action="store_true", help="accepted: nothing is ever downloaded")
    parser.add_argument("--json", action="store_true", help="JSON on standard output, lines on standard error")
    parser.add_argument(
        "--group",
        action="append",
        choices=list(MODULES),
        help="only this group of checks (repeatable); libraries compares with what training leaves",
    )
    parser.add_argument(
        "--calibrate",
        nargs="?",
        const="",
        metavar="FILE",
        help="measure for some minutes what this Mac does, into one file without personal data; goes on with a file "
        "that is there",
    )
    parser.add_argument(
        "--part", action="append", choices=list(BY_NAME), help="only this part of a calibration (repeatable)"
    )
    parser.add_argument("--sample", type=_positive, metavar="N", help="every Nth operator of a calibration")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
