"""Trains with other releases of Unsloth, and compares with transformers and PEFT on the CPU:

    python -m tests.versions FOLDER 2026.9.14 2026.10.1

A release and the unsloth_zoo that it asks for are installed into ``FOLDER/VERSION`` by pip, without their dependencies,
unless they are there. One line a family is printed as the page of versions has it. The exit code is 1 where a release
does not train as the CPU does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.version import Version

from patcher.drift.releases import of_version
from tests.e2e.models import save
from tests.e2e.test_parity import FIRST, GRADIENT, LOSS, Trained, distance, off
from tests.process import ROOT, run_module

FAMILIES = ("llama", "gemma2")
SPEC = {"sentences": 6, "max_length": 256, "steps": 8, "checkpointing": True}


def installed(folder: Path, version: str) -> Path:
    """The folder with a release of unsloth and its unsloth_zoo."""
    target = folder / version
    if not target.is_dir():
        wanted = [f"{release.name}=={release.version}" for release in of_version("unsloth", Version(version))]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), *wanted]
        subprocess.run(pip, check=True)
    return target


def train(version: str, target: Path, folder: Path) -> Trained:
    """Both families through the release on the simulated Mac, and with transformers and PEFT on the CPU."""
    trained = Trained(folder)
    for stack, start, environment in (
        ("unsloth", None, {"PYTHONPATH": f"{target}:{ROOT}", "UNSLOTH_COMPILE_LOCATION": str(folder / "compiled")}),
        ("cpu", FIRST, {}),
    ):
        runs = [trained.spec(name, f"{stack}-float32", start, dtype="float32") for name in FAMILIES]
        file = folder / f"{stack}.json"
        file.write_text(json.dumps({**SPEC, "stack": stack, "runs": runs}))
        run_module("tests.e2e.train", file, **environment)
    return trained


def line(version: str, name: str, trained: Trained) -> tuple[str, bool]:
    """What a release did with a family: largest distance of a loss, that of the gradients, whether tokens are equal."""
    ours, reference = trained.read(name, FIRST), trained.read(name, "cpu-float32")
    losses, gradients = off(ours, reference), distance(ours, reference)[1]
    said = "equal" if ours.tokens == reference.tokens else "other"
    return f"| {version} | {name} | {losses:.0e} | {gradients:.0e} | {said} |", losses <= LOSS and gradients <= GRADIENT


def main(folder: Path, versions: list[str]) -> int:
    """Prints a table; 1 where a release failed."""
    print("| version | family | losses | gradients | greedy tokens |\n|---|---|---|---|---|")
    good = True
    for version in versions:
        target = installed(folder, version)
        with tempfile.TemporaryDirectory() as scratch:
            for name in FAMILIES:
                save(name, Path(scratch))
            try:
                trained = train(version, target, Path(scratch))
            except AssertionError as error:
                print(f"| {version} | | | | {str(error).strip().splitlines()[-1]} |", flush=True)
                good = False
                continue
            for text, right in (line(version, name, trained) for name in FAMILIES):
                print(text, flush=True)
                good = good and right
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
