"""``python -m patcher bisect``: from its options to the report."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from patcher import environment
from patcher.bisect.runs import Outcome, Program
from patcher.bisect.search import Answer, Finding, Search
from patcher.changes import catalogue
from patcher.engine.choice import one_for_each_target, switched_off
from patcher.engine.model import AnyChange
from patcher.errors import InvalidSwitch, compose
from patcher.macs import machine

FOUND, NOTHING_FOUND = 0, 1
INTERRUPTED = 130
"""What a shell reports of a program that Ctrl-C has ended: 128 + SIGINT."""


@dataclass(frozen=True)
class Order:
    """What the command line asks for.

    Attributes:
        target: script, folder, zip file, or a module's name.
        arguments: what follows it.
        module: whether ``target`` is a module's name.
        simulate: the Mac to simulate, or None.
        timeout: for each run, in seconds; None waits for ever.
        command: a shell command whose output counts, or None where the end of the program does.
        match: a text that marks the failure.
        report: where the report goes besides the screen.
    """

    target: str
    arguments: tuple[str, ...]
    module: bool
    simulate: str | None
    timeout: float | None
    command: str | None
    match: str | None
    report: Path | None

    def program(self) -> Program:
        """What is run again and again."""
        arguments = [*(["-m"] if self.module else []), self.target, *self.arguments]
        return Program(arguments, self.simulate, self.timeout, self.command)


def carry_out(order: Order) -> int:
    """Searches, prints the report to stdout and progress to stderr.

    Returns:
        0 where changes were found, 130 after Ctrl-C, 1 else.

    Raises:
        InvalidSwitch: the script or the folder of the report is not there, or ``PATCHER_WITHOUT`` names no change.
        NoMps, InvalidSwitch: as for `patch_for_mac`.
    """
    _check(order)
    asked = environment.switches()
    here = machine.detect(order.simulate or asked.simulate)
    known = one_for_each_target(catalogue())
    off = switched_off(known, asked.without)
    program = order.program()
    search = Search(
        [change for change in known if change.key not in off],
        lambda without: program.run([*sorted(off), *without]),
        _Progress(len(known) - len(off)).tell,
        order.match,
    )
    try:
        finding = search.of_a_failure() if order.command is None else search.of_an_output()
    except KeyboardInterrupt:
        sys.stderr.write(f"\ninterrupted after {search.runs} runs; {_so_far(search.suspects)}\n")
        return INTERRUPTED
    text = "\n".join(report_lines(order, finding, str(here))) + "\n"
    sys.stdout.write(text)
    if order.report is not None:
        order.report.write_text(text, encoding="utf-8")
    return FOUND if finding.answer is Answer.FOUND else NOTHING_FOUND


def _so_far(suspects: Sequence[str]) -> str:
    if not suspects:
        return "nothing is known yet"
    return f"so far it is {len(suspects)} changes: {', '.join(suspects)}"


def _check(order: Order) -> None:
    """Before the first run, which may take long."""
    if not order.module and not Path(order.target).exists():
        raise InvalidSwitch(compose("there is no such script", found=order.target, left="nothing was run"))
    if order.report is not None and (order.report.is_dir() or not order.report.parent.is_dir()):
        raise InvalidSwitch(
            compose(
                "--report cannot be written",
                target=str(order.report),
                expected="the name of a file in a folder that is there",
                left="nothing was run",
                run=f"mkdir -p {shlex.quote(str(order.report.parent))}, or name a file elsewhere",
            )
        )


class _Progress:
    """A line to stderr for each run."""

    def __init__(self, total: int) -> None:
        self._total, self._runs = total, 0

    def tell(self, on: int, outcome: Outcome) -> None:
        self._runs += 1
        sys.stderr.write(
            f"run {self._runs}: {on} of {self._total} changes in place: {outcome.kind} ({outcome.seconds:.1f} s)\n"
        )
        sys.stderr.flush()


def report_lines(order: Order, finding: Finding, here: str) -> Iterator[str]:
    """The report to send: what was found, the versions and the machine, the end of the failing run."""
    yield f"patcher bisect: {finding.answer.value}"
    for number, reason in enumerate(finding.reasons):
        yield from ["and where these are left out, these:"] if number else []
        for change in reason:
            yield f"  {change.key}"
            yield f"    {change.distribution}, reviewed for {change.reviewed}"
            yield f"    why: {change.why}"
            yield from [f"    needed for: {change.needed_for}"] if change.needed_for else []
    if finding.relief is not None:
        switch = ",".join(change.key for change in finding.changes)
        yield f"without them:   {_told(order, finding.relief)}"
        yield f"to go on:       PATCHER_WITHOUT={shlex.quote(switch)}"
    yield f"as it is:       {_told(order, finding.failure)}"
    program = shlex.join([*(["-m"] if order.module else []), Path(order.target).name, *order.arguments])
    yield f"program:        {_without_home(program)}"
    yield f"runs:           {finding.runs}"
    yield f"machine:        {here}, {platform.python_implementation()} {platform.python_version()}"
    yield f"versions:       {', '.join(_versions(finding.changes))}"
    yield "the end of what it printed (read it before you send it):"
    yield from (f"  {_without_home(line)}" for line in finding.failure.tail())


def _told(order: Order, outcome: Outcome) -> str:
    prints = "" if order.command is None else f", and the command prints {(outcome.told or '').strip()!r}"
    return f"{outcome.kind}{prints}"


def _versions(changes: Sequence[AnyChange]) -> Iterator[str]:
    """Of ourselves and of every library that is changed, those of the changes found first."""
    found = [change.distribution for change in changes]
    for name in dict.fromkeys(["patch-for-mac", *found, *sorted({change.distribution for change in catalogue()})]):
        try:
            yield f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"{name} not installed"


def _without_home(line: str) -> str:
    """Folders of the user's are not for others to read."""
    shown = line.replace(f"{Path.cwd()}/", "")
    return shown if Path.home() == Path("/") else shown.replace(str(Path.home()), "~")
