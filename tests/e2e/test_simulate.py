"""Scripts that nobody prepared, tried on a Mac that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from patcher.macs.mac import GIB, parse
from tests.e2e.models import save
from tests.trial.command import Done, simulate

pytestmark = pytest.mark.slow
SCRIPTS = Path(__file__).parent / "scripts"
STEPS = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("llama", tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize(
    ("script", "rewritten"),
    [
        ("main_job.py", "optim: adamw_8bit -> "),
        ("trainer.py", "tf32: True -> "),
        ("trl_sft.py", ""),
        ("trl_dpo.py", ""),
    ],
)
def test_a_cuda_script_runs_with_no_change(tmp_path: Path, model: Path, script: str, rewritten: str) -> None:
    """Unsloth's main job, transformers' Trainer, TRL's SFT and DPO: on mps to their end, with all that was promised.

    The weights alone, half a million in fp32 (bf16 for the main job), are a lower bound of the peak; the limit is the
    Mac's; every optimizer step is seen, and there is an expected speed with its error.
    """
    found = simulate(tmp_path, "--mac", "M1 8GB", "--report", "r.html", str(SCRIPTS / script), str(model))
    data = found.data
    assert found.code == 0, f"{found.stdout[-2000:]}\n{found.stderr[-4000:]}\n{found.verdict}"
    assert "device: mps:0" in found.stdout
    assert data["verdict"]["kind"] == "finished"
    assert data["steps"] == STEPS
    assert 2**19 < data["memory"]["peak"] < data["memory"]["peak_driver"] < GIB
    assert data["memory"]["limit"] <= 2 * parse("M1 8GB").recommended_max_bytes
    assert not [s for s in data["sightings"] if s["kind"] in ("missing", "refused")]
    assert data["estimate"]["steps_per_second"] > 0 and data["estimate"]["error"] in found.verdict
    assert any(rewritten in line for line in found.verdict.splitlines())
    assert data["usage"]["by_op"] and any("layers.0" in name for name in data["usage"]["by_module"])
    assert "<svg" in (tmp_path / "r.html").read_text()


LAYERS, WIDTH = 32, 4096
LAYER = 4 * WIDTH**2
"""Bytes of one of the four: 64 MiB. All of a weight, its gradient and its two moments: 8 GiB."""


def full_state(folder: Path, mac: str) -> Done:
    return simulate(folder, "--mac", mac, "--no-strict", str(SCRIPTS / "full_state.py"), str(LAYERS), str(WIDTH))


def test_8_gb_are_too_little_where_arithmetic_says_so(tmp_path: Path) -> None:
    """16 bytes for each of 512 Mi parameters are 8 GiB: an 8 GB Mac stops at the last tensor that fits.

    Every tensor is 64 MiB and has a heap of its own, so that the limit allows floor(limit / 64 MiB) of them; the
    verdict has the sum. 36 GB are enough. The host holds next to nothing of it.
    """
    found = full_state(tmp_path, "M1 8GB")
    limit = found.data["memory"]["limit"]
    fit = limit // LAYER
    assert 2 * LAYERS < fit < 4 * LAYERS  # weights and gradients fit, the moments do not
    assert (found.code, found.stdout) == (1, "weights\ngradients\n")
    assert found.data["verdict"]["kind"] == "out of memory"
    assert found.data["memory"]["peak"] == fit * LAYER
    held, asked = fit * LAYER / GIB, LAYER / 2**20
    assert f"{held:.2f} GiB held + 0 bytes other + {asked:.0f} MiB asked for" in found.verdict
    assert "would have allowed it" in found.verdict
    assert found.data["host"]["peak_rss"] < 2 * GIB


def test_36_gb_are_enough(tmp_path: Path) -> None:
    """The same script on the larger Mac: all four of everything are there at the end."""
    found = full_state(tmp_path, "M3 Max 36GB")
    assert (found.code, found.stdout.splitlines()[-1]) == (0, "moments")
    assert found.data["memory"]["peak"] == 4 * LAYERS * LAYER
    assert found.data["host"]["peak_rss"] < 2 * GIB


def test_a_bare_mac_has_no_cuda(tmp_path: Path) -> None:
    """``--no-patch``: the script's "cuda" fails as it does on a Mac, and mps works without any change of ours."""
    script = tmp_path / "script.py"
    script.write_text("import torch\nx = torch.ones(4, device='mps')\nprint(x.sum().item())\ntorch.ones(1).cuda()\n")
    found = simulate(tmp_path, "--no-patch", "script.py")
    assert found.stdout == "4.0\n" and found.code == 1
    assert found.data["verdict"]["line"].startswith("AssertionError at script.py:4: Torch not compiled with CUDA")
    assert found.data["patches"] is None and "nothing patched" in found.verdict


def test_what_a_mac_refuses_is_told_with_its_place(tmp_path: Path) -> None:
    """float64 that the script catches, an operator on the CPU, a fault that was asked for; killed in mid-flight."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time, torch\n"
        "x = torch.eye(3, device='mps')\n"
        "try:\n    x.double()\nexcept TypeError:\n    pass\n"
        "torch.linalg.eigvals(x)\n"
        "time.sleep(3)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    found = simulate(tmp_path, "--faults", "late-copy", "script.py")
    seen = {(s["kind"], s["name"], s["place"]): s["count"] for s in found.data["sightings"]}
    assert seen == {("float64", "Double", "script.py:4"): 1, ("fell_back", "aten::_linalg_eigvals", "script.py:7"): 1}
    assert found.data["faults"] == ["late-copy"]
    assert found.code == 137 and found.data["verdict"]["line"] == "killed by SIGKILL (Killed)"
    assert "s before its end" in found.verdict
