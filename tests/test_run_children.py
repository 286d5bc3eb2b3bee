"""What a program under ``python -m patcher run`` starts is patched too."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from patcher import children
from tests.process import ROOT, clean_environment, run_module, run_python

PARENT = """
    import json, multiprocessing, subprocess, sys

    ASK = (
        "import json, sys, patcher; patched = bool(patcher.report().entries)\\n"
        "print(json.dumps({'patched': patched, 'torch': 'torch' in sys.modules, 'path': sys.path}))"
    )

    def ask(*command):
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    def in_spawned(queue):
        import patcher
        queue.put(bool(patcher.report().entries))

    if __name__ == "__main__":
        spawn = multiprocessing.get_context("spawn")
        queue = spawn.Queue()
        worker = spawn.Process(target=in_spawned, args=(queue,))
        worker.start()
        again = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
        of_user = "import sitecustomize; print(__import__('json').dumps(sitecustomize.MARK))"
        print(json.dumps({
            "child": ask(sys.executable, "-c", ASK),
            "grandchild": ask(sys.executable, "-c", again, ASK),
            "spawned": queue.get(timeout=60),
            "sitecustomize": ask(sys.executable, "-c", of_user),
        }))
        worker.join()
"""


def run(folder: Path, *arguments: str, **environment: str) -> str:
    return run_module("patcher", "run", *arguments, cwd=folder, timeout=300, **environment).stdout


def answer(text: str) -> Any:
    return json.loads(text.strip().splitlines()[-1])


def test_children_are_patched(tmp_path: Path) -> None:
    """Children, their children and spawned workers; without torch, on the user's path, after the user's own
    sitecustomize.
    """
    (tmp_path / "parent.py").write_text(textwrap.dedent(PARENT))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sitecustomize.py").write_text("import sys\nMARK = 'patcher' in sys.modules\n")
    path = f"{tmp_path / 'own'}:{ROOT}"
    found = answer(run(tmp_path, "parent.py", UNSLOTH_SIMULATE_MAC="1", PYTHONPATH=path))
    assert found["child"]["patched"] and found["grandchild"]["patched"] and found["spawned"]
    assert not found["child"]["torch"]
    assert str(Path(children.__file__).parent) not in found["child"]["path"]
    assert {str(tmp_path / "own"), str(ROOT)} <= set(found["child"]["path"])
    assert found["sitecustomize"] is False, "the user's sitecustomize ran after the patches, or not at all"


def test_a_sitecustomize_that_raises_leaves_children_patched(tmp_path: Path) -> None:
    """Python reports what it raised and goes on; an empty entry of the import path stays the working directory."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sitecustomize.py").write_text("raise RuntimeError('the user is wrong')\n")
    (tmp_path / "mine.py").write_text("import patcher\nprint(bool(patcher.report().entries))\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tool.py").write_text("import mine\n")
    (tmp_path / "parent.py").write_text(
        "import subprocess, sys\nsubprocess.run([sys.executable, 'bin/tool.py'], check=True)\n"
    )
    path = f":{tmp_path / 'own'}:{ROOT}"
    done = run_module("patcher", "run", "parent.py", cwd=tmp_path, UNSLOTH_SIMULATE_MAC="1", PYTHONPATH=path)
    assert done.stdout.strip() == "True"
    assert "the user is wrong" in done.stderr
    given = children.variables({"PYTHONPATH": ""}, strict=True, verbose=False)
    assert given["PYTHONPATH"] == str(Path(children.__file__).parent)


def test_without_a_mac_children_are_pythons(tmp_path: Path) -> None:
    """Nothing is patched there, and nothing is in the environment of children."""
    (tmp_path / "show.py").write_text("import os; print(__import__('json').dumps(dict(os.environ)))")
    found = answer(run(tmp_path, "show.py", PYTHONPATH=str(ROOT)))
    assert children.VARIABLE not in found and found["PYTHONPATH"] == str(ROOT)


def test_python_of_another_environment_is_left_alone(tmp_path: Path) -> None:
    """Its libraries are others; what was asked for with wrong switches ends the child with the message."""
    order = children.variables(clean_environment(), strict=True, verbose=False)
    ask = ("-c", "import sys; print('patcher' in sys.modules)")
    elsewhere = json.dumps({**json.loads(order[children.VARIABLE]), "prefix": "/elsewhere"})
    for extra, expected in (({children.VARIABLE: elsewhere}, "False"), ({"UNSLOTH_SIMULATE_MAC": "1"}, "True")):
        done = run_python(*ask, cwd=tmp_path, check=False, **{**order, **extra})
        assert done.stdout.strip() == expected, done.stderr
    done = run_python(*ask, cwd=tmp_path, check=False, **order, UNSLOTH_FORCE_MPS="perhaps")
    assert done.returncode == 2 and "UNSLOTH_FORCE_MPS is neither on nor off" in done.stderr and not done.stdout


SCRIPT = """
    import torch
    from accelerate import Accelerator
    accelerator = Accelerator()
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), 1e-3))
    loss = model(torch.ones(1, 4).to("cuda")).pow(2).mean()
    accelerator.backward(loss)
    optimizer.step()
    print(__import__("json").dumps([accelerator.device.type, accelerator.mixed_precision]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "precision"),
    [
        (["-m", "accelerate.commands.launch", "--num_processes", "1", "--mixed_precision", "bf16"], "bf16"),
        (["-m", "torch.distributed.run", "--nproc_per_node", "1", "--standalone"], "no"),
    ],
    ids=["accelerate launch", "torchrun"],
)
def test_a_launcher_trains_on_mps(tmp_path: Path, launcher: list[str], precision: str) -> None:
    """The training script, which is not the launcher, is patched."""
    (tmp_path / "train.py").write_text(textwrap.dedent(SCRIPT))
    printed = run(tmp_path, *launcher, "train.py", UNSLOTH_SIMULATE_MAC="1", PYTHONPATH=str(ROOT))
    assert answer(printed) == ["mps", precision]
