"""One trial with everything that is known about it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from patcher.macs.mac import MacProfile
from patcher.trial.verdict import Verdict, judge
from patcher.trial.watch import End


@dataclass(frozen=True)
class Trial:
    """A script, the Mac that was simulated for it, and what came of it.

    Attributes:
        command: the script's command line.
        mac: the Mac.
        patched: whether `patch_for_mac` was in place from the start.
        faults: the faults that were to be switched on.
        end: how the process ended.
        facts: the account that it kept; empty where it kept none.
        verdict: what came of it.
    """

    command: str
    mac: MacProfile
    patched: bool
    faults: tuple[str, ...]
    end: End
    facts: dict[str, Any]
    verdict: Verdict

    @property
    def used(self) -> bool:
        """Whether the script has done anything on the device."""
        return bool(self.facts.get("torch")) and (self.facts["operators"] > 0 or self.facts["memory"]["peak"] > 0)

    def why_unused(self) -> str:
        """Why the simulated Mac has nothing to tell."""
        if self.verdict.kind == "killed":
            return "the script had put nothing on mps by then"
        if not self.facts.get("torch"):
            return "the script did not import torch"
        hint = "" if self.patched else "; --no-patch leaves 'cuda' to the script: does it look for mps?"
        return f"the script put nothing on mps: it ran on the CPU{hint}"

    def title(self) -> str:
        """The Mac in words."""
        macos = ".".join(map(str, self.mac.macos))
        return (
            f"a simulated {self.mac.chip} with {self.mac.memory_bytes >> 30} GB, {self.mac.gpu_cores} GPU cores,"
            f" macOS {macos}, torch {self.mac.torch}, {'patched' if self.patched else 'nothing patched'}"
        )

    def rewrites(self) -> list[str]:
        """Training arguments that got another value, or kept theirs with something to be known about it."""
        rows = (self.facts.get("patches") or {}).get("rewrites", [])
        return [
            f"{config}.{field}: {old if old == new else f'{old} -> {new}'}: {why}"
            for config, field, old, new, why in rows
        ]

    def patches(self) -> list[str]:
        """The report of `patch_for_mac` in short."""
        found = self.facts.get("patches")
        if not found:
            return []
        if found["inactive"]:
            return [f"nothing is patched: {found['inactive']}"]
        words = {"pending": "for libraries that were not imported"}
        counted = ", ".join(f"{count} {words.get(word, word)}" for word, count in found["counts"].items() if count)
        refused = [f"refused: {target}: {detail.splitlines()[0]}" for target, detail in found["refused"]]
        return [counted, *refused, *(f"note: {note}" for note in found["notes"])]

    def training(self) -> list[str]:
        """Optimizer steps, and how fast they would be on the Mac."""
        steps = self.facts["steps"]
        counted = f"{steps} optimizer step{'' if steps == 1 else 's'}"
        if self.speed() is None:
            return [counted]
        return [f"{counted}; {self.speed_in_short()} expected on an {self.mac.name}", self.facts["estimate"]["error"]]

    def speed(self) -> float | None:
        """Optimizer steps per second that are expected on the Mac; None where there is nothing to tell from."""
        estimate = self.facts.get("estimate") or {}
        found: float | None = estimate.get("steps_per_second")
        return found

    def speed_in_short(self) -> str:
        """The same for people, in whichever unit gives the larger number."""
        speed = self.speed() or 0.0
        if speed == 0:
            return "unknown"
        number, unit = (speed, "steps/s") if speed >= 1 else (1 / speed, "s/step")
        return f"{float(f'{number:.2g}'):g} {unit}"

    def assumptions(self) -> list[str]:
        """What the expected speed rests on, its error among it."""
        return list((self.facts.get("estimate") or {}).get("assumptions", []))

    def timeline(self) -> tuple[list[tuple[float, int]], str]:
        """Memory over time, and what its time is counted in."""
        points = (self.facts.get("usage") or {}).get("timeline") or []
        if len(points) > 1:
            return [(point["dispatches"], point["bytes"]) for point in points], "kernels run"
        return [(seconds, count) for seconds, count in self.facts["samples"]], "seconds on this machine"

    def to_dict(self) -> dict[str, Any]:
        """Everything, for ``--json``."""
        return {
            "command": self.command,
            "mac": asdict(self.mac),
            "patched": self.patched,
            "faults": list(self.faults),
            "verdict": asdict(self.verdict),
            "used": self.used,
            "signal": self.end.signal,
            "host": {"seconds": self.end.seconds, "peak_rss": self.end.peak_rss},
            **self.facts,
        }


def conclude(command: str, mac: MacProfile, end: End, *, patched: bool, faults: tuple[str, ...]) -> Trial:
    """The trial of a script that has ended."""
    facts: dict[str, Any] = json.loads(end.facts) if end.facts else {}
    return Trial(command, mac, patched, faults, end, facts, judge(facts, end, mac))
