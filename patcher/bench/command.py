"""``python -m patcher bench``: every run in a process of its own, and a table of what they measured."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from patcher import environment
from patcher.bench.families import FAMILIES
from patcher.bench.measure import Figures, Order
from patcher.errors import InvalidSwitch, MissingLibrary, compose

DEVICES = ("mps", "cpu")
DTYPES = ("float32", "float16", "bfloat16")
ALL = "all"
SECONDS = 600
"""After which a run counts as hung."""

_TAIL = 3


@dataclass(frozen=True)
class Run:
    """What became of an order: its figures, or the last lines of its process."""

    order: Order
    figures: Figures | None
    error: str = ""


def orders(
    models: str, devices: str, dtypes: str, *, rows: int, steps: int, simulate: str | None = None
) -> list[Order]:
    """One order for each model, dtype and device, from lists with commas; ``all`` is every model.

    Raises:
        InvalidSwitch: a name that is not known, with those that are.
        MissingLibrary: the loss of a model imports a package that is not installed.
    """
    names = list(FAMILIES) if models == ALL else _chosen("--model", models, [*FAMILIES, ALL])
    wanted = [
        Order(name, device, dtype, rows, steps, simulate)
        for name in names
        for dtype in _chosen("--dtype", dtypes, DTYPES)
        for device in _chosen("--device", devices, DEVICES)
    ]
    for name in names:
        needs = FAMILIES[name].needs
        if needs is not None and importlib.util.find_spec(needs) is None:
            raise MissingLibrary(compose(f"the loss of {name} imports {needs}", run=f"pip install {needs}"))
    return wanted


def _chosen(option: str, text: str, known: Sequence[str]) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise InvalidSwitch(
                compose(f"{option} {text}: {name!r} is not known", expected=", ".join(known), run="give one of these")
            )
    return list(dict.fromkeys(names))


def run_all(wanted: Sequence[Order]) -> Iterator[Run]:
    """Runs the orders one after the other."""
    with tempfile.TemporaryDirectory(prefix="patcher-bench-") as folder:
        for number, order in enumerate(wanted):
            yield _run(order, Path(folder) / f"{number}.json")


def _run(order: Order, out: Path) -> Run:
    command = [sys.executable, "-W", "ignore", "-m", "patcher.bench.measure", str(out), json.dumps(asdict(order))]
    child = {**environment.snapshot(), "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, env=child, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Run(order, None, f"still running after {SECONDS} s")
    if done.returncode or not out.exists():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return Run(order, None, "\n".join(lines[-_TAIL:]) or f"exit code {done.returncode}")
    return Run(order, Figures(**json.loads(out.read_text())))
