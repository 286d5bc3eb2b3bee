"""One release from its file of pins to a result: its libraries, the exercise, the comparison, what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from tests.process import ROOT, run_python
from tests.versions import environment
from tests.versions.locks import LOCKS, pins
from tests.versions.plan import ADVANTAGE, FAULTS, GRADIENT, LOG_PROB, LOSS, MERGED, REWARD, RUNS

WRITERS = ("transformers", "tokenizers", "bitsandbytes")
Runs = tuple[tuple[str, str], ...]


def tried(name: str, folder: Path, runs: Runs = RUNS) -> dict[str, Any]:
    """The result for the pins of this name: versions, distances of each run, what the report says, what is wrong."""
    wanted = pins(LOCKS / f"{name}.txt")
    began = time.monotonic()
    found: dict[str, Any] = {"name": name, "date": str(date.today()), "pins": wanted, "runs": {}, "report": {}}
    try:
        path = os.pathsep.join([*environment.path(wanted, folder / "packages"), str(ROOT)])
        with tempfile.TemporaryDirectory() as scratch:
            found |= _exercised(wanted, _models(wanted, folder / "models", path), Path(scratch), path, runs)
        found = judged(found)
    except (AssertionError, subprocess.SubprocessError) as error:
        found["said"] = _said(error)
        found["problems"] = [_last_line(found["said"])]
    return {**found, "seconds": round(time.monotonic() - began)}


def judged(found: dict[str, Any]) -> dict[str, Any]:
    """A result with what is wrong: with the release here, and with it on every device."""
    runs, wanted = found["runs"], found["pins"]
    if not runs:
        return found
    upstream = [fault.what for kind, fault in FAULTS.items() if _shows(kind, runs, wanted)]
    return {**found, "problems": problems(runs, wanted), "upstream": upstream}


def _models(wanted: dict[str, str], folder: Path, path: str) -> Path:
    """The models that are trained, written by these libraries: once for each set of those that write."""
    target = folder / "-".join(f"{name}-{wanted[name]}" for name in WRITERS)
    if not target.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as scratch:
            run_python("-m", "tests.versions.reference", "--models", f"{scratch}/done", timeout=1200, PYTHONPATH=path)
            os.replace(f"{scratch}/done", target)
    return target


def _exercised(wanted: dict[str, str], models: Path, folder: Path, path: str, runs: Runs) -> dict[str, Any]:
    out, spec = folder / "out", folder / "spec.json"
    out.mkdir()
    stack = "unsloth" if "unsloth" in wanted else "trl"
    content = {"stack": stack, "folder": str(models), "out": str(out), "runs": runs, "checkpointing": "unsloth"}
    spec.write_text(json.dumps(content))
    # What torch.compile makes of the generated trainers is the business of other tests.
    switches = {"PYTHONPATH": path, "UNSLOTH_COMPILE_LOCATION": str(folder / "compiled"), "TORCHDYNAMO_DISABLE": "1"}
    run_python("-m", "tests.versions.exercise", spec, timeout=1200, **switches)
    run_python("-m", "tests.versions.reference", spec, timeout=1200, **switches)
    files = {name: json.loads((out / f"{name}.json").read_text()) for name in ("compared", "report")}
    return {"runs": files["compared"], "report": files["report"]}


def problems(runs: dict[str, Any], wanted: dict[str, str]) -> list[str]:
    """What is wrong with the runs of a release, each named; without what is known to be wrong on every device."""
    unsloth = "unsloth" in wanted
    looked_at = {name: run for name, run in runs.items() if not _is_known(name, wanted)}
    return [f"{name}: {text}" for name, run in looked_at.items() for text in _problems_of(name, run, unsloth=unsloth)]


def _is_known(name: str, wanted: dict[str, str]) -> bool:
    """Whether a run is one in which a fault of these libraries shows."""
    kind = name.partition("-")[0]
    return kind in FAULTS and FAULTS[kind].is_in(wanted)


def _shows(kind: str, runs: dict[str, Any], wanted: dict[str, str]) -> bool:
    """Whether a fault that is expected is there: a run is wrong in which it should show."""
    if not FAULTS[kind].is_in(wanted):
        return False
    unsloth = "unsloth" in wanted
    suspects = {name: run for name, run in runs.items() if name.partition("-")[0] == kind}
    return any(_problems_of(name, run, unsloth=unsloth) for name, run in suspects.items())


def _problems_of(name: str, run: dict[str, Any], *, unsloth: bool) -> list[str]:
    if "failed" in run:
        return [_last_line(run["failed"])]
    kind, _, precision = name.partition("-")
    bounds = {
        "loss": LOSS[precision],
        "gradient": GRADIENT,
        "merged": MERGED,
        "log_prob": LOG_PROB,
        "advantage": ADVANTAGE,
    }
    found = [f"{what} off by {run[what]:.0e}" for what, bound in bounds.items() if not run.get(what, 0) <= bound]
    packed = sum("Linear4bit" in layer for layer in run["layers"].values())
    if packed != (14 if "nf4" in precision else 0):
        found.append(f"{packed} layers in 4 bit")
    if run["device"] != "mps":
        found.append(f"on {run['device']}")
    if unsloth != run["class"].startswith("Unsloth"):
        found.append(f"trained by {run['class']}")
    if kind == "grpo_even" and not run["reward"] > REWARD:
        found.append(f"the reward is {run['reward']:.2f} at the end")
    return found


def _said(error: Exception) -> str:
    return str(error.stderr) if isinstance(error, subprocess.CalledProcessError) else str(error)


def _last_line(text: str) -> str:
    """What was raised, with the headline of the patch's own errors, which have several lines."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    raised = [line for line in lines if not line.startswith((" ", "\t")) and ": " in line]
    return (raised or lines or ["no words"])[-1].strip()
