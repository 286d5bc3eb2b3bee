"""What Unsloth generates is what runs on mps, and holds nothing that only works on CUDA."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3MoeConfig

from patcher.changes import catalogue
from patcher.engine.model import Patch
from tests.contract.generated_code import Leftover, judge, leftovers
from tests.e2e.models import config, save, tokenizer
from tests.process import run_module

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.slow

ALLOWED: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("generated_code.toml").read_text())["allowed"]
TRAINERS = {"sft": "UnslothSFTTrainer", "dpo": "UnslothDPOTrainer", "grpo": "UnslothGRPOTrainer"}
LAYERS = ("Attention_forward", "RMSNorm_forward", "RotaryEmbedding_forward")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder: what was generated in "compiled", what ran in "out.json"."""
    folder = tmp_path_factory.mktemp("generated")
    save("qwen3", folder)
    dense = {name: value for name, value in config("qwen3").to_dict().items() if name not in ("model_type", "dtype")}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
    torch.manual_seed(0)
    mixture = AutoModelForCausalLM.from_config(Qwen3MoeConfig(**{**dense, **experts}), dtype=torch.float32)
    mixture.save_pretrained(folder / "qwen3_moe")
    tokenizer().save_pretrained(folder / "qwen3_moe")
    # Without torch.compile the functions run as they are written, and a trace sees them.
    run_module(
        "tests.e2e.generated",
        folder,
        folder / "out.json",
        UNSLOTH_COMPILE_LOCATION=str(folder / "compiled"),
        TORCHDYNAMO_DISABLE="1",
    )
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> dict[str, Any]:
    """What ran, by trainer."""
    result: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return result


@pytest.fixture(scope="module")
def found(folder: Path) -> list[Leftover]:
    """What is left of CUDA in every generated file."""
    changes = [change for change in catalogue() if isinstance(change, Patch)]
    answered = {change.qualname for change in changes if change.module == "torch.cuda"}
    files = sorted((folder / "compiled").glob("*.py"))
    return [one for file in files for one in leftovers(file.read_text(), file.name, answered)]


def test_every_trainer_and_every_family_was_generated(folder: Path) -> None:
    """The files that the reader reads are those of this run."""
    names = {file.name for file in (folder / "compiled").glob("*.py")}
    trainers = ["SFT", "DPO", "KTO", "ORPO", "CPO", "Reward", "GRPO", "RLOO", "GKD", "GOLD", "SDFT", "Distillation"]
    assert {f"Unsloth{name}Trainer.py" for name in trainers} <= names
    families = ("qwen3", "qwen3_moe", "gemma3", "gpt_oss", "qwen2_5_vl", "qwen3_next", "whisper")
    models = {f"unsloth_compiled_module_{family}.py" for family in families}
    assert {*models, "moe_utils.py", "Linear_peft_forward.py"} <= names


def test_nothing_generated_is_for_cuda_only(found: list[Leftover]) -> None:
    """Whatever is left is in the list, with the reason why it is harmless."""
    assert "\n".join(map(str, judge(found, ALLOWED)[0])) == ""


def test_the_list_has_no_stale_entry(found: list[Leftover]) -> None:
    """Each expression of each entry is in what was generated."""
    assert judge(found, ALLOWED)[1] == []


@pytest.mark.parametrize("kind", TRAINERS)
def test_the_generated_trainer_is_what_trains(run: dict[str, Any], folder: Path, kind: str) -> None:
    """The class and its module are those of the generated file; its loss and its step ran on mps."""
    result, file = run[kind], f"{TRAINERS[kind]}.py"
    assert result["class"] == TRAINERS[kind]
    assert result["module"] == result["sources"][0] == result["sources"][1] == str(folder / "compiled" / file)
    on_mps = {tuple(place) for place in result["on_mps"]}
    assert {(file, "compute_loss"), (file, "training_step")} <= on_mps
    assert len(result["losses"]) == 2
    assert all(loss == loss for loss in result["losses"])  # none is NaN


@pytest.mark.parametrize("kind", TRAINERS)
def test_the_compiled_model_is_what_computes(run: dict[str, Any], folder: Path, kind: str) -> None:
    """Attention, norm, rotation and LoRA come from the generated files and ran on mps."""
    model = "unsloth_compiled_module_qwen3.py"
    assert run[kind]["attention"] == str(folder / "compiled" / model)
    on_mps = {tuple(place) for place in run[kind]["on_mps"]}
    assert {*((model, f"Qwen3{layer}") for layer in LAYERS), ("Linear_peft_forward.py", "lora_forward")} <= on_mps


def test_grpo_scores_with_the_generated_functions(run: dict[str, Any]) -> None:
    """The batch is planned by the memory of mps, and the loss is that of the generated file."""
    file = "UnslothGRPOTrainer.py"
    assert [file, "autotune_batch_and_chunks"] in run["grpo"]["ran"]
    for name in ("grpo_accumulated_loss", "grpo_compute_loss", "_get_per_token_logps_and_entropies"):
        assert [file, name] in run["grpo"]["on_mps"]


def test_a_mixture_of_experts_takes_the_loop_over_experts(run: dict[str, Any]) -> None:
    """Neither Triton's grouped GEMM nor torch's, which upstream asks of CUDA and XPU only."""
    ran = {name for file, name in run["experts"]["ran"] if file == "moe_utils.py"}
    assert ["moe_utils.py", "forward_native_moe_loop"] in run["experts"]["on_mps"]
    assert not any("grouped_mm" in name or "triton" in name for name in ran)
