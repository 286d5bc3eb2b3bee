"""One release from its file of pins to a result: its libraries, the exercise, the comparison, what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from tests.process import ROOT, run_python
from tests.versions import demo, environment
from tests.versions.locks import LOCKS, pins
from tests.versions.plan import ADVANTAGE, BEGINS, FAULTS, GRADIENT, LEARNS, LOG_PROB, LOSS, MERGED, REWARD, RUNS, exact

WRITERS = ("transformers", "tokenizers", "bitsandbytes")
Runs = tuple[tuple[str, str], ...]


def tried(name: str, folder: Path, runs: Runs = RUNS) -> dict[str, Any]:
    """The result for the pins of this name: versions, distances of each run, what the report says, what is wrong."""
    wanted = pins(LOCKS / f"{name}.txt")
    began = time.monotonic()
    found: dict[str, Any] = {"name": name, "date": str(date.today()), "pins": wanted, "runs": {}, "report": {}}
    try:
        path = _path(wanted, folder)
        models = _made(wanted, folder / "models", partial(_write_models, path=path))
        with tempfile.TemporaryDirectory() as scratch:
            found |= _exercised(wanted, models, Path(scratch), path, runs)
        found = judged(found)
    except (AssertionError, subprocess.SubprocessError) as error:
        found["said"] = _said(error)
        found["problems"] = [_last_line(found["said"])]
    return {**found, "seconds": round(time.monotonic() - began)}


def with_demo(found: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The result of a release, with what its demo did; only Unsloth has one."""
    wanted, began = found["pins"], time.monotonic()
    try:
        path = _path(wanted, folder)
        models = _made(wanted, folder / "demos", partial(demo.prepared, path=path))
        with tempfile.TemporaryDirectory() as scratch:
            shown = demo.shown(models, Path(scratch), path)
    except (AssertionError, subprocess.SubprocessError) as error:
        shown = {"failed": _said(error)}
    return judged({**found, "demo": shown, "seconds": found["seconds"] + round(time.monotonic() - began)})


def _path(wanted: dict[str, str], folder: Path) -> str:
    """PYTHONPATH with the libraries of these pins."""
    return os.pathsep.join([*environment.path(wanted, folder / "packages"), str(ROOT)])


def judged(found: dict[str, Any]) -> dict[str, Any]:
    """A result with what is wrong: with the release here, and with it on every device."""
    runs, wanted = found["runs"], found["pins"]
    if not runs:
        return found
    upstream = [fault.what for kind, fault in FAULTS.items() if _shows(kind, runs, wanted)]
    wrong = [*problems(runs, wanted), *problems_of_demo(found.get("demo", {}))]
    return {**found, "problems": wrong, "upstream": upstream}


def _made(wanted: dict[str, str], folder: Path, write: Callable[[Path], None]) -> Path:
    """What these libraries write, made once for each set of those that write."""
    target = folder / "-".join(f"{name}-{wanted[name]}" for name in WRITERS)
    if not target.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as scratch:
            write(Path(scratch, "done"))
            os.replace(f"{scratch}/done", target)
    return target


def _write_models(folder: Path, path: str) -> None:
    """The models that are trained."""
    run_python("-m", "tests.versions.reference", "--models", folder, timeout=1200, PYTHONPATH=path)


def _exercised(wanted: dict[str, str], models: Path, folder: Path, path: str, runs: Runs) -> dict[str, Any]:
    stack = "unsloth" if "unsloth" in wanted else "trl"
    spec = {"stack": stack, "folder": str(models), "out": str(folder / "out"), "runs": runs, "checkpointing": "unsloth"}
    # What torch.compile makes of the generated trainers is the business of other tests.
    switches = {"PYTHONPATH": path, "UNSLOTH_COMPILE_LOCATION": str(folder / "compiled"), "TORCHDYNAMO_DISABLE": "1"}
    _run("tests.versions.exercise", spec, **switches)
    if stack == "trl":
        spec["alone"] = str(folder / "alone")
        exactly = sorted({(kind, exact(precision)) for kind, precision in runs if kind != "grpo_even"})
        _run("tests.e2e.trainers", {**spec, "stack": "cpu", "out": spec["alone"], "runs": exactly}, **switches)
    _run("tests.versions.reference", spec, **switches)
    files = {name: json.loads((folder / "out" / f"{name}.json").read_text()) for name in ("compared", "report")}
    return {"runs": files["compared"], "report": files["report"]}


def _run(module: str, spec: dict[str, Any], **switches: str) -> None:
    """A module that takes a spec as a file; what it writes goes into its own folder."""
    out = Path(spec["out"])
    out.mkdir(exist_ok=True)
    file = out.parent / f"{out.name}.json"
    file.write_text(json.dumps(spec))
    run_python("-m", module, file, timeout=1200, **switches)


def problems(runs: dict[str, Any], wanted: dict[str, str]) -> list[str]:
    """What is wrong with the runs of a release, each named; without what is known to be wrong on every device."""
    unsloth = "unsloth" in wanted
    looked_at = {name: run for name, run in runs.items() if not _is_known(name, wanted)}
    return [f"{name}: {text}" for name, run in looked_at.items() for text in _problems_of(name, run, unsloth=unsloth)]


def problems_of_demo(shown: dict[str, Any]) -> list[str]:
    """What is wrong with the demo: a loss that is not the model's at the beginning, or that does not fall."""
    if "failed" in shown:
        return [f"demo: {_last_line(shown['failed'])}"]
    if not shown:
        return []
    losses, found = shown["losses"], []
    if len(losses) != demo.STEPS:
        return [f"demo: {len(losses)} steps"]
    off = min(max(abs(a / b - 1) for a, b in zip(losses, first, strict=False)) for first in shown["expected"])
    if not off <= BEGINS:
        found.append(f"demo: loss off by {off:.0e}")
    if not sum(losses[-5:]) <= LEARNS * sum(losses[:5]):
        found.append(f"demo: loss {sum(losses[:5]) / 5:.2f} to {sum(losses[-5:]) / 5:.2f}")
    return found


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
