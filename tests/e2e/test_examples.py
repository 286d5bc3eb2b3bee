"""The scripts of examples/ on the simulated Mac, with a tiny model: they end well and print what they promise.

(examples/finetune.py is run by test_demo.py, with the real model.)
"""

from __future__ import annotations

import json
import math
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.models import save
from tests.process import ROOT, run_python

EXAMPLES = ROOT / "examples"
ONE_LINE = "# The one line more:\nfrom patcher import patch_for_mac\n\npatch_for_mac()\n\n"
TRAINERS = ("dpo", "orpo", "simpo", "kto", "reward", "pretrain", "qlora", "resume")
ONLINE = {"grpo": 30, "rloo": 8}
WITHOUT_UNSLOTH = {"trainer_peft": 8, "seq2seq": 60, "distill": 12, "embedding": 12}


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_a_script_is_a_cuda_script_and_one_line_more(script: Path) -> None:
    """Without that line nothing in it knows of this project or of mps."""
    text = script.read_text()
    if script.name == "prepare_smollm2.py":
        assert ONE_LINE not in text
        return
    assert text.count(ONE_LINE) == 1
    code = text.replace(ONE_LINE, "").split('"""', 2)[2]
    assert not re.search(r"patcher|patch_for_mac|mps|apple", code, re.IGNORECASE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the scripts run; the model is in ``llama``."""
    folder = tmp_path_factory.mktemp("examples")
    save("llama", folder)
    return folder


def python(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python in the folder, on the simulated Mac; compiled code is shared between the processes."""
    compiled = {
        "UNSLOTH_COMPILE_LOCATION": str(folder / "unsloth"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
    }
    done = run_python(*arguments, cwd=folder, timeout=1200, **compiled, **environment)
    return done


def together(folder: Path, name: str, orders: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """What the scripts printed, all of them in one process."""
    out = folder / f"{name}.json"
    scripts = [",".join([str(EXAMPLES / f"{script}.py"), "llama", *more]) for script, more in orders.items()]
    python(folder, "-m", "tests.e2e.examples", str(out), *scripts, UNSLOTH_SIMULATE_MAC="1")
    found: dict[str, dict[str, Any]] = json.loads(out.read_text())
    return found


@pytest.fixture(scope="module")
def with_unsloth(folder: Path) -> dict[str, dict[str, Any]]:
    # Batches of pre-training are all different: there the fall must be larger than their difference.
    orders = {name: ["--steps", "40" if name == "pretrain" else "8"] for name in TRAINERS}
    online = {name: ["--steps", str(steps), "--rate", "5e-3"] for name, steps in ONLINE.items()}
    return together(folder, "unsloth", {**orders, **online, "chat": ["--tokens", "8"]})


@pytest.fixture(scope="module")
def without_unsloth(folder: Path) -> dict[str, dict[str, Any]]:
    orders = {name: ["--steps", str(steps)] for name, steps in WITHOUT_UNSLOTH.items()}
    return together(folder, "plain", orders)


def numbers(printed: str, label: str) -> list[float]:
    """The decimal numbers in the line that begins with the label."""
    line = next(line for line in printed.splitlines() if line.startswith(f"{label}:"))
    found = [float(number) for number in re.findall(r"[-+]?\d+\.\d+", line)]
    assert found and all(map(math.isfinite, found)), line
    return found


def told(results: dict[str, dict[str, Any]], name: str) -> str:
    """What a script printed; it has ended well."""
    assert results[name]["error"] == "", results[name]["error"]
    printed: str = results[name]["printed"]
    return printed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpo", "orpo", "simpo", "kto", "reward", "pretrain", "qlora"])
def test_the_loss_falls(with_unsloth: dict[str, Any], name: str) -> None:
    """On a model of random weights: over 8 steps that see each row twice; pre-training over 40, each of other rows.

    The margin, where there is one, grows.
    """
    printed = told(with_unsloth, name)
    first, last = numbers(printed, "loss")
    assert last < first
    if name in ("dpo", "simpo", "kto"):
        before, after = numbers(printed, "rewards/margins")
        assert after > before


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(WITHOUT_UNSLOTH))
def test_the_loss_falls_without_unsloth(without_unsloth: dict[str, Any], name: str) -> None:
    """Likewise with transformers, PEFT, TRL and sentence-transformers alone."""
    printed = told(without_unsloth, name)
    first, last = numbers(printed, "loss")
    assert last < first
    if name == "seq2seq":
        assert len(re.findall(r"^the \w+ \w+ +-> ", printed, re.MULTILINE)) == 4


@pytest.mark.slow
def test_the_reward_rises(with_unsloth: dict[str, Any]) -> None:
    """GRPO: the share of vowels over 30 steps. The mean of 4 steps of 16 answers has an error of about 0.01."""
    first, last = numbers(told(with_unsloth, "grpo"), "reward")
    assert last > first + 0.03


@pytest.mark.slow
def test_rloo_samples_and_trains(with_unsloth: dict[str, Any]) -> None:
    """Too few steps for a rise, which test_trainers.py shows: a share of vowels, and no other number."""
    assert all(0 < share < 1 for share in numbers(told(with_unsloth, "rloo"), "reward"))


@pytest.mark.slow
def test_the_reward_model_scores_two_answers(with_unsloth: dict[str, Any]) -> None:
    """A finite number for each."""
    printed = told(with_unsloth, "reward")
    assert numbers(printed, "chosen") and numbers(printed, "rejected")


@pytest.mark.slow
def test_qlora_has_its_weights_in_4_bit(with_unsloth: dict[str, Any]) -> None:
    """Half a byte for each weight."""
    assert "Linear4bit, 16384 bytes for 32768 values" in told(with_unsloth, "qlora")


@pytest.mark.slow
def test_resume_goes_on(with_unsloth: dict[str, Any], folder: Path) -> None:
    """From step 4 to step 8; the second trainer's log has the losses of all steps."""
    printed = told(with_unsloth, "resume")
    assert "stopped:  after step 4 of 8" in printed and "finished: step 8; 8 losses" in printed
    assert {path.name for path in (folder / "demo" / "resume").iterdir()} >= {"checkpoint-4", "checkpoint-8"}


@pytest.mark.slow
def test_chat_streams_and_answers(with_unsloth: dict[str, Any]) -> None:
    """The words are those of a random model."""
    printed = told(with_unsloth, "chat")
    assert printed.count("question:") == printed.count("answer:") == 3 and "streamed:" in printed


RUN_AND_TELL = """
import runpy, sys
runpy.run_path(sys.argv[1], run_name="__main__")
from patcher.tiles.backends import launches
print("ran on:", *sorted({launched.back_end for launched in launches}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("back_end", ["torch", "metal"])
def test_kernels_of_the_scripts_own(folder: Path, back_end: str) -> None:
    """Errors within what rounding explains, which the script itself computes and asserts, on either back end."""
    script = str(EXAMPLES / "triton_kernel.py")
    done = python(folder, "-c", RUN_AND_TELL, script, UNSLOTH_SIMULATE_MAC="1", PATCHER_TRITON=back_end)
    for label in ("softmax", "its gradient", "matrix product"):
        (share,) = numbers(done.stdout, label)
        assert 0 < share <= 1
    assert "configuration:  Config(TILE_M=128, TILE_N=256" in done.stdout and f"ran on: {back_end}\n" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [("dpo", ["--steps", "8"]), ("trainer_peft", ["--steps", "8"])])
def test_a_script_without_the_line_runs(folder: Path, name: str, options: list[str]) -> None:
    """``python -m patcher run``, in a process of its own, prints what the script prints."""
    script = folder / f"{name}.py"
    script.write_text((EXAMPLES / f"{name}.py").read_text().replace(ONE_LINE, ""))
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "preferences.jsonl").write_bytes((EXAMPLES / "data" / "preferences.jsonl").read_bytes())
    done = python(folder, "-m", "patcher", "run", "--simulate", "1", str(script), "llama", *options)
    first, last = numbers(done.stdout, "loss")
    assert last < first
