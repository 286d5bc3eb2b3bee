"""Trainings without any replacement of a kernel: those of Unsloth and TRL run as they ship, as Metal shaders.

`make unreplaced` has the tests of every trainer and family; here is a process of Unsloth's and one of TRL alone.
Oracle: the plain formulas of the losses on the CPU without patches.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import unreplaced
from tests.e2e.models import save
from tests.e2e.test_trainers import LOSS
from tests.e2e.trainers_data import RATE
from tests.e2e.trainers_formulas import trained_losses
from tests.e2e.trainers_reference import compute_as_on_a_gpu, loaded, prepare, with_adapter, with_start_values
from tests.process import clean_environment, run_module

HALF = ("sft", "sft_gemma2")
"""In 16 bit Unsloth takes its fused functions of the MLP."""
RUNS = {
    "unsloth": (("dpo", "float32"), ("sft_gemma2", "float32"), ("sft", "nf4"), *((k, "bfloat16") for k in HALF)),
    "trl": (("dpo", "float32"),),
}
EXACT = [(stack, *run) for stack in RUNS for run in RUNS[stack] if run[1] != "bfloat16"]
KERNELS = {
    "trl.kernels.chunked_logprob._forward_kernel",
    "trl.kernels.chunked_logprob._backward_kernel",
    "unsloth.kernels.geglu._approx_forward_kernel",
    "unsloth.kernels.geglu._approx_backward_kernel",
    "unsloth.kernels.rms_layernorm._rms_layernorm_forward",
    "unsloth.kernels.rms_layernorm._rms_layernorm_backward",
    "unsloth.kernels.rms_layernorm._gemma_rms_layernorm_forward",
    "unsloth.kernels.rope_embedding._rope_embedding_QK",
    "unsloth.kernels.swiglu._fg_kernel",
    "unsloth.kernels.swiglu._DWf_DW_dfg_kernel",
}


def test_what_is_left_out_is_what_launches() -> None:
    """Optional changes, each in the file of a kernel; Unsloth's norms among them, 4-bit weights not."""
    names = unreplaced.replacements()
    assert "unsloth.kernels.rms_layernorm:_rms_forward" in names
    assert not any(name.startswith("unsloth.kernels.utils:") for name in names)
    assert len(names) == len(set(names)) > 20


def test_a_process_leaves_out_what_it_is_told_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the variable is set; a test's own list comes first."""
    monkeypatch.delenv("PATCHER_UNREPLACED", raising=False)
    assert "PATCHER_WITHOUT" not in clean_environment()
    monkeypatch.setenv("PATCHER_UNREPLACED", str(tmp_path))
    assert clean_environment()["PATCHER_WITHOUT"].split(",") == unreplaced.replacements()
    assert clean_environment(PATCHER_WITHOUT="trl")["PATCHER_WITHOUT"] == "trl"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, results, and in ``launches`` what was launched."""
    folder = tmp_path_factory.mktemp("unreplaced")
    prepare(folder)
    save("gemma2", folder)
    switches = {"UNSLOTH_COMPILE_LOCATION": str(folder / "compiled"), "TORCHDYNAMO_DISABLE": "1"}
    environment = unreplaced.as_they_ship(clean_environment(**switches), folder / "launches")
    for stack, runs in RUNS.items():
        spec, out = folder / f"{stack}.json", folder / stack
        out.mkdir()
        spec.write_text(json.dumps({"stack": stack, "folder": str(folder), "out": str(out), "runs": runs}))
        run_module("tests.e2e.trainers", spec, **environment)
    return folder


def result(folder: Path, stack: str, kind: str, precision: str) -> dict[str, Any]:
    """One run; its traceback if it failed."""
    found: dict[str, Any] = torch.load(folder / stack / f"{kind}-{precision}.pt")
    assert "failed" not in found, found["failed"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("stack", "kind", "precision"), EXACT)
def test_losses_equal_the_formula(folder: Path, stack: str, kind: str, precision: str) -> None:
    """Preferences, a Gemma 2, a base in 4 bit: six steps in fp32."""
    found = result(folder, stack, kind, precision)
    model = loaded(folder, kind, precision)[0]
    compute_as_on_a_gpu(model)
    model = with_start_values(folder, kind, with_adapter(model, kind))
    expected = trained_losses(kind.partition("_")[0], model, found["batches"], RATE)
    assert found["class"].startswith("Unsloth") == (stack == "unsloth")
    assert found["losses"] == pytest.approx(expected, rel=LOSS)


@pytest.mark.slow
def test_the_kernels_ran_as_shaders(folder: Path) -> None:
    """Every launch of every kernel of these models and trainers."""
    for stack, runs in RUNS.items():
        for run in runs:
            result(folder, stack, *run)
    found = unreplaced.launches(folder / "launches")
    assert found.keys() >= KERNELS
    assert {place for places in found.values() for place in places} == {"metal"}
