"""Families of models, with transformers and PEFT alone: the patched simulated Mac against the unpatched CPU.

Two fresh processes run every family in three dtypes with the same weights and batch. In 16 bit, where rounding decides,
the CPU in that dtype says how far from the CPU's fp32 run a run may be.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from patcher.bench.families import FAMILIES
from tests.process import run_module

pytestmark = pytest.mark.slow

HALF = ("float16", "bfloat16")

LOSS = 1e-5
"""Relative. fp32 rounding of these models gives 1e-7; X-CLIP's, which amplify it, 2e-6."""
OUTPUT = 1e-5
"""Relative, of all logits or embeddings together; 4e-7 at most was measured, X-CLIP's 2e-6."""
GRADIENT = 1e-3
"""Relative, of all gradients together; 2e-6 at most was measured, X-CLIP's 1e-4. A wrong kernel gives far more."""
NOISE = 1e-4
"""Adam's first step is the learning rate times the gradient's sign, so where the gradient is this small against the
largest one, rounding can turn the step round: such entries are not compared."""
STEP = 1e-5
"""Absolute, of each adapter weight after the step: a hundredth of the learning rate."""
HALF_FACTOR = 1.5
"""How much further from the fp32 run than the CPU in the same dtype a 16-bit run may be."""
AMPLIFIED = {"xclip": 3.0}
"""The same where random weights multiply rounding by a thousand: there two equally good runs differ by chance."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both devices gave, one file for each family and dtype."""
    out = tmp_path_factory.mktemp("families")
    for device in ("cpu", "mps"):
        run_module("tests.e2e.families", out, device, timeout=900)
    return out


def read(folder: Path, name: str, device: str, dtype: str) -> dict[str, Any]:
    """One observation; what was raised in its place fails the test."""
    if (needs := FAMILIES[name].needs) is not None:
        pytest.importorskip(needs, reason=f"the loss of {name} imports {needs}, see requirements/")
    found: dict[str, Any] = torch.load(folder / f"{name}-{device}-{dtype}.pt")
    assert "error" not in found, f"{name} {device} {dtype}: {found['error']}"
    return found


def together(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def apart(ours: torch.Tensor, reference: torch.Tensor) -> float:
    """Relative difference; NaN, which no bound accepts, if either holds one."""
    return ((ours - reference).norm() / reference.norm()).item()


def distances(ours: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Relative differences of what many numbers make."""
    return {
        "output": apart(ours["output"], reference["output"]),
        **{key: apart(together(ours[key]), together(reference[key])) for key in ("gradients", "adapter_gradients")},
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_fp32_equals_the_cpu(folder: Path, name: str) -> None:
    """Losses before and after a step of LoRA, output, every gradient, the adapters after the step, greedy tokens."""
    ours, reference = (read(folder, name, device, "float32") for device in ("mps", "cpu"))
    assert ours["losses"] == pytest.approx(reference["losses"], rel=LOSS)
    assert ours["losses"][2] < ours["losses"][1]
    assert ours["gradients"].keys() == reference["gradients"].keys()
    assert ours["adapters"].keys() == reference["adapters"].keys() != set()
    found = distances(ours, reference)
    assert found["output"] <= OUTPUT
    assert found["gradients"] <= GRADIENT
    assert found["adapter_gradients"] <= GRADIENT
    gradient = together(reference["adapter_gradients"]).abs()
    clear = gradient > NOISE * gradient.max()
    assert clear.float().mean() > 0.1
    stepped = [together(found["adapters"])[clear] for found in (ours, reference)]
    torch.testing.assert_close(*stepped, rtol=0, atol=STEP)
    assert ours["tokens"] == reference["tokens"]
    assert bool(ours["tokens"]) == bool(FAMILIES[name].generates)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", FAMILIES)
def test_16_bit_is_as_exact_as_the_cpu(folder: Path, name: str, dtype: str) -> None:
    """Output and gradients are at most 1.5 times as far from the CPU's fp32 run as the CPU's in this dtype."""
    exact = read(folder, name, "cpu", "float32")
    ours = distances(read(folder, name, "mps", dtype), exact)
    theirs = distances(read(folder, name, "cpu", dtype), exact)
    factor = AMPLIFIED.get(name, HALF_FACTOR)
    for key, distance in theirs.items():
        assert distance > 0
        assert ours[key] <= factor * distance, f"{key}: {ours[key]:.2e} against {distance:.2e}"


@pytest.mark.parametrize("dtype", ("float32", *HALF))
@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_mac_refuses_is_known(folder: Path, name: str, dtype: str) -> None:
    """Nothing is refused, no fp64 is asked for, and nothing runs on the CPU."""
    rules = read(folder, name, "mps", dtype)["rules"]
    assert rules["missing"] == {}
    assert rules["refused"] == {}
    assert rules["float64"] == 0
    assert rules["fell_back"] == {}  # with torch 2.13 wav2vec2's ctc_loss did
