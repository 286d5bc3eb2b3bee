"""``verify_apple.py --calibrate``: runs the parts, keeps the file, goes on where it was stopped. Imports no torch."""

from __future__ import annotations

import importlib.util
import platform
import re
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

import patcher
from patcher.calibration import record, runner
from patcher.calibration.facts import Facts
from patcher.calibration.parts import BY_NAME, Part
from patcher.calibration.record import COMPLETE, LEFT_OUT, UNFINISHED, PartRecord, Record
from patcher.errors import CalibrationUnusable, PatcherError, compose
from patcher.macs.machine import Machine

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130
KEEP_SECONDS = 5.0
"""So old may the file be when the process is killed."""

_SEND = (
    "It has no names, paths or numbers that tell whose Mac it is; you can read it. Please attach it to an issue of the "
    "project."
)
_COMPARE = "python -m tests.fidelity --against FILE compares the simulated Mac with it."


@dataclass(frozen=True)
class Order:
    """What is asked for.

    Attributes:
        file: where the file is to be; None for a name that says which Mac it is, in the working directory.
        parts: names of the parts.
        sample: every Nth operator only.
        simulated: the Mac to simulate, or None for the one at hand.
    """

    file: Path | None = None
    parts: tuple[str, ...] = tuple(BY_NAME)
    sample: int = 1
    simulated: Facts | None = None


def facts_of(simulated: Machine) -> Facts:
    """What a calibration of a simulated Mac is of."""
    return Facts(
        chip=simulated.chip,
        gpu_cores=simulated.gpu_cores,
        memory_bytes=simulated.memory_bytes,
        macos=simulated.macos or (0, 0),
        torch=simulated.torch or "",
        python=platform.python_version(),
        patcher=patcher.__version__,
        simulated=True,
    )


def run(order: Order, console: Console) -> int:
    """Calibrates; returns the exit code: 0, or 1 where the device or the disk does not work, 2, or 130 after Ctrl-C."""
    try:
        begun, path = _begin(order, console)
    except PatcherError as error:
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        return WRONG_USE
    except runner.NoAnswer as lost:
        console.print(f"the mps device of this machine does not work: {lost}", markup=False, soft_wrap=True)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    try:
        if not _measure_all(begun, path, order, console):
            return INTERRUPTED
    except CalibrationUnusable as error:
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        return FAILED
    if left := begun.unfinished():
        words = f"\nnot whole yet: {', '.join(left)}; the same command without --part and --sample goes on"
        console.print(words, markup=False, highlight=False, soft_wrap=True)
    words = f"\nwritten: {path.name}, {path.stat().st_size / 1024:.0f} KB. {_COMPARE if order.simulated else _SEND}"
    console.print(words, markup=False, soft_wrap=True)
    return 0


def _measure_all(begun: Record, path: Path, order: Order, console: Console) -> bool:
    """Runs the parts; False after Ctrl-C, when what there is has been kept."""
    try:
        for name in order.parts:
            _measure(BY_NAME[name], begun, path, order, console)
    except KeyboardInterrupt:
        record.write(begun, path)
        words = f"\nstopped; what there is, is in {path.name}: the same command goes on from it"
        console.print(words, markup=False, soft_wrap=True)
        return False
    return True


def _begin(order: Order, console: Console) -> tuple[Record, Path]:
    """The record to fill, and its file, in which it can be kept.

    Raises:
        CalibrationUnusable: the file cannot be written, or there is one that is of something else.
        NoAnswer: the device does not work.
    """
    if importlib.util.find_spec("torch") is None:
        raise CalibrationUnusable(
            compose("torch is not installed for this Python", run="pip install 'patch-for-mac[unsloth]'")
        )
    device = runner.ask_device(order.simulated)
    facts = Facts.from_dict(device.pop("facts"))
    path = order.file or Path(_usual_name(facts))
    found = record.read(path) if path.exists() else Record(facts, device)
    if found.facts != facts:
        raise CalibrationUnusable(
            compose(
                "the file is the calibration of another Mac, or of another version of torch, Python or this project",
                target=str(path),
                expected=str(facts),
                found=f"{found.facts}, patch-for-mac {found.facts.patcher}",
                left="the file is as it was",
                run="python verify_apple.py --calibrate FILE, with another file",
            )
        )
    record.try_to_write(path)
    console.print(str(facts), markup=False, highlight=False, soft_wrap=True)
    return found, path


def _usual_name(facts: Facts) -> str:
    memory = f"{facts.memory_bytes / 2**30:.0f}GB"
    macos = f"macOS {facts.macos[0]}.{facts.macos[1]}"
    kind = "simulated " if facts.simulated else ""
    text = f"calibration {kind}{facts.chip.removeprefix('Apple ')} {memory} {macos} torch {facts.torch}"
    return re.sub(r"[^\w.]+", "-", text).strip("-") + ".json"


def _measure(part: Part, begun: Record, path: Path, order: Order, console: Console) -> None:
    """Runs the cases of a part that have no result yet, and keeps the file."""
    entry = begun.parts.setdefault(part.name, PartRecord())
    if entry.state != COMPLETE:
        began = time.monotonic()
        before, entry.why, entry.state = entry.seconds, "", UNFINISHED
        try:
            with console.status(f"{part.name}: {part.shows}"):
                _run_cases(part, entry, begun, path, order)
        finally:
            entry.seconds = before + time.monotonic() - began
        record.write(begun, path)
    why = f": {entry.why}" if entry.why else ""
    line = f"  {part.name:<10} {len(entry.results)} of {entry.cases} cases, {entry.seconds:.0f} s{why}"
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _run_cases(part: Part, entry: PartRecord, begun: Record, path: Path, order: Order) -> None:
    missing = part.missing()
    if missing is not None:
        entry.state, entry.why = LEFT_OUT, missing
        return
    began = kept = time.monotonic()
    try:
        with runner.Cases(part, order.simulated, begun.device) as cases:
            entry.cases = len(cases.names)
            for case in cases.names[:: order.sample if part.sampled else 1]:
                if case in entry.results:
                    continue
                if time.monotonic() - began > part.seconds:
                    entry.why = f"more than {part.seconds:.0f} s: the same command goes on"
                    return
                entry.results[case] = cases.run(case)
                if time.monotonic() - kept > KEEP_SECONDS:
                    record.write(begun, path)
                    kept = time.monotonic()
    except runner.NoAnswer as lost:
        entry.why = str(lost)
        return
    if len(entry.results) == entry.cases:
        entry.state = COMPLETE
    else:
        entry.why = "a sample of them"
