"""How a trial went: one line, and the arithmetic where the memory ran out."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Any

from patcher.macs.mac import GIB, MacProfile, every_mac
from patcher.run import INTERRUPTED
from patcher.sizes import UNITS, size
from patcher.trial.record import OUT_OF_MEMORY
from patcher.trial.watch import End

_SIZE = r"([\d.]+) (bytes|KiB|MiB|GiB)"
_REFUSAL = re.compile(
    rf"MPS allocated: {_SIZE}, other allocations: {_SIZE}, max allowed: {_SIZE}\)\. Tried to allocate {_SIZE}"
)


@dataclass(frozen=True)
class Verdict:
    """How a trial ended.

    Attributes:
        kind: ``"finished"``, ``"exit"``, ``"exception"``, ``"out of memory"``, ``"interrupted"``, ``"killed"`` or
            ``"not started"``.
        line: the same as a sentence.
        details: what else there is to know, a line each.
        exit_code: the script's, as a shell shows it.
    """

    kind: str
    line: str
    details: tuple[str, ...]
    exit_code: int

    @property
    def good(self) -> bool:
        """Whether the script came to its end."""
        return self.kind == "finished"


def judge(facts: dict[str, Any], end: End, mac: MacProfile) -> Verdict:
    """What is to be said about a script that ended so and kept this account."""
    ending: dict[str, Any] = facts.get("ending") or {}
    exception: dict[str, Any] | None = ending.get("exception")
    if end.signal is not None:
        line = f"killed by {_signal(end.signal)}{_where(end.crash)}"
        return Verdict("killed", line, _killed(end, facts), end.exit_code)
    if not facts:
        return Verdict("not started", f"the script was not started: exit code {end.code}", (), end.exit_code)
    if exception is not None and end.code == INTERRUPTED and exception["type"] == "KeyboardInterrupt":
        return Verdict("interrupted", f"interrupted{_at(exception['place'])}", (), end.exit_code)
    if exception is not None and exception[OUT_OF_MEMORY]:
        details = arithmetic(exception[OUT_OF_MEMORY], facts, mac)
        return Verdict(OUT_OF_MEMORY, f"out of memory{_at(exception['place'])}", details, end.exit_code)
    if exception is not None:
        line = f"{exception['type']}{_at(exception['place'])}: {_one_line(exception['message'])}"
        return Verdict("exception", line, (), end.exit_code)
    if end.code == 0:
        return Verdict("finished", "finished", (), 0)
    said = ending.get("message")
    line = f"ended itself with exit code {end.code}" + (f": {_one_line(said)}" if said else "")
    return Verdict("exit", line, (), end.exit_code)


def arithmetic(message: str, facts: dict[str, Any], mac: MacProfile) -> tuple[str, ...]:
    """The sum that did not fit, whence the limit, and the smallest Mac on which this allocation would have fitted.

    Args:
        message: torch's, which gives the sizes with two decimals.
        facts: the account, for the limit and what it was made from.
        mac: the Mac that was simulated.
    """
    found = _REFUSAL.search(message)
    if found is None:
        return (_one_line(message),)
    held, other, allowed, asked = (
        round(float(number) * UNITS[unit])
        for number, unit in zip(found.groups()[::2], found.groups()[1::2], strict=True)
    )
    needed = held + other + asked
    lines = [
        f"{size(held)} held + {size(other)} other + {size(asked)} asked for = {size(needed)},"
        f" and {size(allowed)} are allowed"
    ]
    recommended = facts.get("recommended") or mac.recommended_max_bytes
    ratio = allowed / recommended
    lines.append(
        f"allowed: {ratio:.2f} x {size(recommended)}, the part of {size(mac.memory_bytes)} that Metal recommends"
    )
    larger = enough(needed, ratio, mac)
    lines.append(
        f"an {larger.name} would have allowed it; what came after it is not known"
        if larger
        else "no Mac would have allowed it"
    )
    return tuple(lines)


def enough(needed: int, ratio: float, mac: MacProfile) -> MacProfile | None:
    """The Mac with the least memory that allows ``needed`` bytes: one with the same chip if there is one."""
    fitting = [other for other in every_mac() if ratio * other.recommended_max_bytes >= needed]
    return min(
        fitting, key=lambda other: (other.chip != mac.chip, other.memory_bytes, "core" in other.name), default=None
    )


def _killed(end: End, facts: dict[str, Any]) -> tuple[str, ...]:
    details = []
    if end.signal == signal.SIGKILL:
        host = f"it held {end.peak_rss / GIB:.1f} GiB of this machine's own memory at the most"
        details.append(f"somebody killed it, or this machine ran out of memory: {host}")
    if facts:
        details.append(f"what follows is as of {end.seconds - facts['seconds']:.1f} s before its end")
    return tuple(details)


def _signal(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({signal.strsignal(number)})"
    except ValueError:  # a real-time signal, which has no name
        return f"signal {number}"


def _where(crash: str) -> str:
    """The innermost place in the user's files of a crash, from what Python's fault handler wrote."""
    from patcher.provenance import is_library
    from patcher.simulator.places import short

    frames = re.findall(r'File "([^"]*)", line (\d+)', crash)
    place = next(((file, line) for file, line in frames if not is_library(file)), None)
    return _at(f"{short(place[0])}:{place[1]}") if place else ""


def _at(place: str) -> str:
    return f" at {place}" if place else ""


def _one_line(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= 300 else line[:297] + "..."
