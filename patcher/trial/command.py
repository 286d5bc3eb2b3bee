"""``python -m patcher simulate``: from its options to the verdict."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patcher import environment
from patcher.errors import InvalidSwitch, SimulatorUnavailable, compose
from patcher.macs.mac import DEFAULT, parse
from patcher.simulator.faults import VARIABLE, check, from_environment

SIMULATE = "UNSLOTH_SIMULATE_MAC"


@dataclass(frozen=True)
class Order:
    """What the command line asks for.

    Attributes:
        target: script, folder, zip file, ``-``, or a module's name.
        arguments: what follows it.
        module: whether ``target`` is a module's name.
        mac: the Mac; None follows ``UNSLOTH_SIMULATE_MAC``, else the default one.
        patch: whether to patch first.
        faults: names, with commas between them.
        report: where the HTML page goes.
        json: where the JSON goes.
        strict: as for `patch_for_mac`.
        excepthook: the hook that the script is to find.
    """

    target: str
    arguments: tuple[str, ...]
    module: bool
    mac: str | None
    patch: bool
    faults: str
    report: Path | None
    json: Path | None
    strict: bool
    excepthook: Callable[..., Any]


def carry_out(order: Order) -> int:
    """Runs the script, prints the verdict to stderr, writes what was asked for; gives the script's exit code.

    Raises:
        InvalidSwitch: no such Mac, no such fault, or no folder for the report.
        SimulatorUnavailable: this is not Linux.
    """
    _check_machine()
    _check_files(order)
    mac = parse(order.mac or environment.switches().simulate or DEFAULT)
    faults = _faults(order.faults) or from_environment()
    from patcher.trial import text, watch
    from patcher.trial.trial import conclude

    with environment.temporarily({SIMULATE: mac.name, **({VARIABLE: ",".join(faults)} if faults else {})}):
        end = watch.run_apart(mac, lambda: _prepare(order), lambda: _run(order), patched=order.patch)
    command = watch.arguments_of(order.target, order.arguments, order.module)
    trial = conclude(command, mac, end, patched=order.patch, faults=faults)
    sys.stderr.write("\n".join(text.lines(trial)) + "\n")
    if order.json is not None:
        _write("json", order.json, json.dumps(trial.to_dict(), indent=2) + "\n")
    if order.report is not None:
        from patcher.trial.page import page

        _write("report", order.report, page(trial))
    return trial.verdict.exit_code


def _check_machine() -> None:
    if platform.system() != "Linux":
        raise SimulatorUnavailable(
            compose(
                "a Mac is simulated on Linux",
                found=platform.system(),
                run="on a Mac: python -m patcher run SCRIPT, on the real device",
            )
        )


def _check_files(order: Order) -> None:
    """Before the script runs, for hours perhaps."""
    for option, path in (("--report", order.report), ("--json", order.json)):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise InvalidSwitch(
                compose(
                    f"{option} cannot be written",
                    target=str(path),
                    expected="the name of a file in a folder that is there",
                    left="the script was not started",
                    run=f"mkdir -p {shlex.quote(str(path.parent))}, or name a file elsewhere",
                )
            )


def _write(title: str, path: Path, content: str) -> None:
    """Writes a file and says so, or why it could not be: the exit code stays the script's."""
    said = str(path)
    try:
        path.write_text(content, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        said = f"not written: {error}"
    sys.stderr.write(f"  {title:<12} {said}\n")


def _faults(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    check(names)
    return names


def _prepare(order: Order) -> None:
    if order.patch:
        from patcher import patch_for_mac

        patch_for_mac(strict=order.strict)
    sys.excepthook = order.excepthook


def _run(order: Order) -> None:
    from patcher.run import run_module, run_path

    (run_module if order.module else run_path)(order.target, order.arguments)
