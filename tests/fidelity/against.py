"""Tells where the simulated Mac differs from a Mac that was calibrated: ``python -m tests.fidelity --against FILE``.

The same parts run on a simulated Mac of the same chip, memory, macOS and torch. Each has its own rule: whether an
operator passes, fails or is refused, and with which exception; whether a probe finds its bug; what the allocator holds,
to the byte; whether a shader runs, and with which exception it is refused. Times are put beside the model's, and not
judged.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patcher.calibration import record, runner
from patcher.calibration.facts import Facts
from patcher.calibration.parts import BY_NAME, Part
from patcher.calibration.record import COMPLETE, PartRecord, Record
from patcher.calibration.runner import NoAnswer
from patcher.errors import CalibrationUnusable, compose
from patcher.macs.mac import TORCH, release_of
from tests.fidelity.measure import PASSED

UNUSABLE = 2

Result = dict[str, Any]
Rule = Callable[[Result, Result], str]
"""From what a Mac and what the simulated one did: how they differ, or ``""``."""


@dataclass(frozen=True)
class Difference:
    """A case that ended otherwise on the simulated Mac.

    Attributes:
        part, case: which.
        how: what the Mac did, and what the simulated one.
    """

    part: str
    case: str
    how: str

    def __str__(self) -> str:
        return f"{self.part}: {self.case}: {self.how}"


@dataclass
class Comparison:
    """All parts of a file.

    Attributes:
        compared: how many cases of each part both Macs have run.
        differences: of these.
        remarks: what was not compared, and what is not judged.
    """

    compared: dict[str, int] = dataclasses.field(default_factory=dict)
    differences: list[Difference] = dataclasses.field(default_factory=list)
    remarks: list[str] = dataclasses.field(default_factory=list)


def main(path: Path) -> int:
    """Prints the comparison; 0 where nothing differs, 1 where something does, 2 for a file that cannot be compared."""
    try:
        theirs = record.read(path)
        found = compare(theirs, lambda part: print(f"{part} ...", file=sys.stderr, flush=True))
    except CalibrationUnusable as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    print(f"{theirs.facts}, beside the simulated one")
    for part, count in found.compared.items():
        wrong = sum(difference.part == part for difference in found.differences)
        print(f"  {part:<10} {count} cases, " + ("reported only" if part == "timings" else f"{wrong} differ"))
    for remark in found.remarks:
        print(f"  {remark}")
    for difference in found.differences:
        print(f"differs: {difference}")
    return 1 if found.differences else 0


def compare(theirs: Record, begin: Callable[[str], None] = lambda part: None) -> Comparison:
    """Runs on the simulated Mac what is in a record; ``begin(part)`` is called before each part.

    Raises:
        CalibrationUnusable: there is nothing to compare, a result is damaged, or no such Mac can be simulated.
    """
    if not any(part.results for part in theirs.parts.values()):
        raise CalibrationUnusable(
            compose(
                "there is nothing to compare with",
                expected="a part with results",
                found="; ".join(f"{name}: {part.state} {part.why}" for name, part in theirs.parts.items()) or "no part",
                run="python verify_apple.py --calibrate FILE on the Mac, which goes on with it",
            )
        )
    mac = simulated(theirs.facts)
    found = Comparison()
    if mac.torch != theirs.facts.torch:
        found.remarks.append(f"torch {theirs.facts.torch} is simulated as {mac.torch}")
    try:
        ours = runner.ask_device(mac)
        _compare_devices(theirs.device, ours, found)
        for name, entry in theirs.parts.items():
            begin(name)
            if name in BY_NAME:
                _compare_part(BY_NAME[name], entry, mac, ours, found)
            else:
                found.remarks.append(f"{name}: this version knows no such part")
    except NoAnswer as lost:
        raise CalibrationUnusable(compose("the simulated Mac does not start", found=str(lost))) from lost
    return found


def simulated(facts: Facts) -> Facts:
    """The Mac to simulate for these facts: with the version of its torch's release that is known."""
    release = release_of(facts.torch)
    if release not in TORCH:
        raise CalibrationUnusable(
            compose(
                "the calibration is of a torch that cannot be simulated",
                expected=f"torch {', '.join(TORCH)}",
                found=f"torch {facts.torch}",
                run="make wheel RELEASE=..., as CONTRIBUTING.md says of a new torch",
            )
        )
    return dataclasses.replace(facts, torch=TORCH[release], simulated=True)


def _compare_devices(theirs: Result, ours: Result, found: Comparison) -> None:
    found.compared["device"] = 1
    wanted, got = theirs.get("recommended_max_memory"), ours["recommended_max_memory"]
    if wanted != got:
        how = f"{wanted} bytes recommended at most, {got} on the simulated Mac"
        found.differences.append(Difference("device", "recommended_max_memory", how))


def _compare_part(part: Part, entry: PartRecord, mac: Facts, device: Result, found: Comparison) -> None:
    if entry.state != COMPLETE:
        found.remarks.append(f"{part.name}: {len(entry.results)} of {entry.cases} cases, {entry.state}: {entry.why}")
    if not entry.results:
        return
    if part.name == "timings":
        found.compared[part.name] = len(entry.results)
        found.remarks += _times(entry, mac, device)
        return
    ours = run(part, entry.results, mac, device)
    if unknown := sorted(entry.results.keys() - ours.keys()):
        found.remarks.append(f"{part.name}: {len(unknown)} cases are not known here: {', '.join(unknown[:5])} ...")
    found.compared[part.name] = len(ours)
    words = 0
    for case, mine in ours.items():
        try:
            how = RULES[part.name](entry.results[case], mine)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CalibrationUnusable(
                compose(
                    "a result in the file is damaged",
                    target=f"{part.name}: {case}",
                    found=f"{type(error).__name__}: {error}",
                )
            ) from error
        if how:
            found.differences.append(Difference(part.name, case, how))
        words += not how and _refused_otherwise(entry.results[case], mine)
    if words:
        found.remarks.append(f"{part.name}: {words} refusals have other words, which is not judged")


def run(part: Part, wanted: Iterable[str], mac: Facts, device: Result) -> dict[str, Result]:
    """What the simulated Mac does in those of the cases that it has."""
    with runner.Cases(part, mac, device) as cases:
        known = set(cases.names)
        return {case: cases.run(case) for case in wanted if case in known}


# ---- the rules ------------------------------------------------------------------------------------------------------


def _verdict(result: Result) -> str:
    """``"passes"``, or how it does not, with the exception's class."""
    outcome = "passes" if result["outcome"] in PASSED else str(result["outcome"])
    return f"{outcome} ({result['kind']})" if "kind" in result else outcome


def _by_verdict(theirs: Result, ours: Result) -> str:
    wanted, got = _verdict(theirs), _verdict(ours)
    return "" if wanted == got else f"{_said(wanted, theirs)}; the simulated Mac: {_said(got, ours)}"


def _said(verdict: str, result: Result) -> str:
    return f"{verdict}, {result['text']}" if result.get("text") else verdict


def _by_shader(theirs: Result, ours: Result) -> str:
    """The verdict, and of what runs the limits that the kernel tells."""
    how = _by_verdict(theirs, ours)
    if how or theirs["outcome"] != "runs":
        return how
    figures = [
        f"{name} {theirs[name]}; the simulated Mac: {ours[name]}"
        for name in ("threads", "width", "shared")
        if theirs[name] != ours[name]
    ]
    return ", ".join(figures)


def _by_byte(theirs: Result, ours: Result) -> str:
    """The first step that differs, and how many do. What Metal has taken before the first one is not compared."""
    if "steps" not in theirs or "steps" not in ours:
        wanted, got = _steps_of(theirs), _steps_of(ours)
        return "" if wanted == got else f"{wanted}; the simulated Mac: {got}"
    pairs = list(zip(theirs["steps"], ours["steps"], strict=True))
    if [first[0] for first, _ in pairs] != [second[0] for _, second in pairs]:
        raise ValueError("the steps are others than here")
    wrong = [(number, a, b) for number, (a, b) in enumerate(pairs, 1) if _held(a) != _held(b)]
    if not wrong:
        return ""
    number, first, second = wrong[0]
    text = f"step {number}, {first[0]!r}: {_in_words(first)}; the simulated Mac: {_in_words(second)}"
    return f"{text} ({len(wrong)} of {len(pairs)} steps differ)"


def _steps_of(result: Result) -> str:
    if "steps" in result:
        return f"all {len(result['steps'])} steps"
    return f"Metal takes no buffer from {result['longest']} bytes on" if "longest" in result else _verdict(result)


def _held(step: list[Any]) -> tuple[int, int, str]:
    _, allocated, driver, _, refusal = step
    return int(allocated), int(driver), str(refusal)


def _in_words(step: list[Any]) -> str:
    allocated, driver, refusal = _held(step)
    return f"{allocated} bytes allocated, {driver} of the driver" + (f", {refusal}" if refusal else "")


RULES: dict[str, Rule] = {
    "operators": _by_verdict,
    "hazards": _by_verdict,
    "shaders": _by_shader,
    "allocator": _by_byte,
}


def _refused_otherwise(theirs: Result, ours: Result) -> bool:
    return "kind" in theirs and theirs.get("text") != ours.get("text")


# ---- times ----------------------------------------------------------------------------------------------------------


MODELLED = dataclasses.replace(BY_NAME["timings"], module="tests.fidelity.modelled")


def _times(entry: PartRecord, mac: Facts, device: Result) -> list[str]:
    """Each measured time beside what the model expects of such a Mac."""
    lines = []
    expected = run(MODELLED, entry.results, mac, device)
    for case, model in expected.items():
        measured = entry.results[case].get("median")
        if not isinstance(measured, float):
            lines.append(f"timings: {case}: {entry.results[case].get('text', 'no time')}")
        elif "seconds" not in model:
            return [*lines, f"timings: the model has no figures for this Mac: {model.get('text')}"]
        else:
            ratio = f"{measured / model['seconds']:.2f} times" if model["seconds"] else "beside"
            lines.append(f"timings: {case}: {measured * 1e6:.1f} us, {ratio} the model's {model['seconds'] * 1e6:.1f}")
    return lines
