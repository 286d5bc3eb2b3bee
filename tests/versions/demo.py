"""The demo with a release: `examples/finetune.py`, shortened. Run in a process of its own:

python -m tests.versions.demo SCRIPT
"""

from __future__ import annotations

import re
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.process import ROOT, answer, run_module, run_python

EXAMPLES = ROOT / "examples"
MODEL = "SmolLM2-135M-Instruct"
STEPS = 10
KEPT = 2
"""The steps that find the model as it was: the rate of the first one is 0, where a warm-up begins."""
ENDINGS = ("", "\n")
"""Of a turn: older releases of Unsloth train the line's end that the chat template writes there, newer ones do not."""
LOGGED = re.compile(r"\{'loss': '?([\d.]+)")


def prepared(folder: Path, path: str) -> None:
    """Writes model and dialogues with the release's libraries."""
    run_python(EXAMPLES / "prepare_smollm2.py", folder, PYTHONPATH=path)


def shown(models: Path, folder: Path, path: str, **switches: str) -> dict[str, Any]:
    """The losses of all steps of the script with these models, and what the first are to be, with one of `ENDINGS`."""
    shutil.copytree(models, folder / "demo", symlinks=True)
    source = (EXAMPLES / "finetune.py").read_text()
    assert source.count("max_steps=40") == 1
    script = folder / "finetune.py"
    script.write_text(source.replace("max_steps=40", f"max_steps={STEPS}"))
    switches |= {"UNSLOTH_SIMULATE_MAC": "1", "PYTHONPATH": path}
    said = run_module("tests.versions.demo", script, cwd=folder, timeout=1800, **switches).stdout
    losses = [float(loss) for loss in LOGGED.findall(said)]
    return {"losses": losses, "expected": answer(run_module("tests.versions.demo_reference", folder, PYTHONPATH=path))}


def run(script: str) -> None:
    """Runs a script where torchvision is, which some releases import, as it is on a Mac."""
    from patcher import patch_for_mac
    from tests.e2e import torchvision_python

    patch_for_mac()
    torchvision_python.load()
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    run(sys.argv[1])
