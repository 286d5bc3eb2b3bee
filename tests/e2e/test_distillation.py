"""The distillation trainers of TRL, alone and through Unsloth, on the simulated Mac, against the CPU without patches.

Completions are the most likely ones, so the same trainer does the same on every device. `DistillationTrainer` needs a
Triton kernel and does not run on the CPU: there it is the divergence by its definition, in float64.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests import unreplaced
from tests.e2e.models import config, save, tokenizer
from tests.e2e.trainers_data import RATE
from tests.e2e.trainers_formulas import row_of
from tests.process import run_module

pytestmark = pytest.mark.slow

ON_CPU = ("gkd", "gkd_online", "gold", "gold_universal", "iw_opd", "sdft", "sdpo", "ssd")
BETAS = {"distillation": 0.5, "distillation_forward": 0.0, "distillation_reverse": 1.0}
PLAN = {
    "cpu": ON_CPU,
    "trl": (*ON_CPU, *BETAS),
    # iw_opd: Unsloth's generate() gives tensors of inference mode, and Unsloth does not rewrite this trainer.
    "unsloth": ("gkd_online", "gold_universal", "sdft", "sdpo", "ssd", "distillation"),
}
REWRITTEN = ("gkd_online", "gold_universal", "sdft", "distillation")
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

LOSS = 1e-4
"""Relative, over 5 steps of AdamW in fp32; measured: 6e-7 at most."""


def student_of(folder: Path) -> Any:
    """The student on the CPU, without start values."""
    lora = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=MODULES, task_type="CAUSAL_LM")
    return get_peft_model(AutoModelForCausalLM.from_pretrained(folder / "llama", dtype=torch.float32), lora)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Student, teacher with other weights, and the start values of LoRA."""
    folder = tmp_path_factory.mktemp("distillation")
    save("llama", folder)
    torch.manual_seed(7)
    AutoModelForCausalLM.from_config(config("llama"), dtype=torch.float32).save_pretrained(folder / "teacher")
    tokenizer().save_pretrained(folder / "teacher")
    trained = {name: p for name, p in student_of(folder).named_parameters() if p.requires_grad}
    save_file({name: torch.randn_like(p) * 0.05 for name, p in trained.items()}, folder / "adapter.safetensors")
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, dict[str, Any]]:
    """What every trainer did, by stack and kind; one process for each stack."""
    results: dict[str, dict[str, Any]] = {}
    for stack, kinds in PLAN.items():
        out = folder / stack
        out.mkdir()
        places = {"model": folder / "llama", "teacher": folder / "teacher", "adapter": folder / "adapter.safetensors"}
        spec = {"stack": stack, "kinds": kinds, "out": str(out), **{name: str(place) for name, place in places.items()}}
        (folder / f"{stack}.json").write_text(json.dumps(spec))
        run_module(
            "tests.e2e.distillation",
            folder / f"{stack}.json",
            UNSLOTH_COMPILE_LOCATION=str(folder / "compiled"),
            TORCHDYNAMO_DISABLE="1",
        )
        results[stack] = {kind: torch.load(out / f"{kind}.pt") for kind in kinds}
        results[stack]["answers"] = json.loads((out / "answers.json").read_text())
    return results


def completions(inputs: dict[str, Tensor]) -> Iterator[tuple[Tensor, int]]:
    """Prompt with completion without padding, and where the completion begins."""
    if "labels" in inputs:
        for ids, labels, mask in zip(inputs["input_ids"], inputs["labels"], inputs["attention_mask"], strict=True):
            yield row_of(ids, mask), int((row_of(labels, mask) == -100).sum())
        return
    names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
    for prompt, prompt_mask, answer, answer_mask in zip(*(inputs[name] for name in names), strict=True):
        head = row_of(prompt, prompt_mask)
        yield torch.cat([head, row_of(answer, answer_mask)]), len(head)


def divergence(student: Any, teacher: Any, ids: Tensor, start: int, beta: float) -> Tensor:
    """Generalized JSD of each next-token distribution, Agarwal et al. 2023, equation 1; the limits are the two KL."""
    ours, theirs = (model(input_ids=ids[None]).logits[0, start - 1 : -1].double() for model in (student, teacher))
    p, q = theirs.detach().log_softmax(-1), ours.log_softmax(-1)
    if beta in (0.0, 1.0):
        a, b = (p, q) if beta == 0 else (q, p)
        return (a.exp() * (a - b)).sum(-1)
    mixture = (beta * p.exp() + (1 - beta) * q.exp()).log()
    return (beta * p.exp() * (p - mixture) + (1 - beta) * q.exp() * (q - mixture)).sum(-1)


def formula(folder: Path, inputs: list[dict[str, Tensor]], beta: float) -> list[float]:
    """The losses of AdamW on the mean divergence of the tokens of these completions."""
    student, start = student_of(folder), load_file(folder / "adapter.safetensors")
    trained = {name: p for name, p in student.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(start[name])
    teacher = AutoModelForCausalLM.from_pretrained(folder / "teacher", dtype=torch.float32).eval()
    optimizer = torch.optim.AdamW(trained.values(), lr=RATE, weight_decay=0.0)
    losses = []
    for batch in inputs:
        loss = torch.cat([divergence(student, teacher, *row, beta) for row in completions(batch)]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("stack", "kind"),
    # gkd_online through Unsloth: the mean over the sampled tokens, below; TRL divides by the number of the data set's.
    [(s, k) for s in ("trl", "unsloth") for k in PLAN[s] if k in ON_CPU and (s, k) != ("unsloth", "gkd_online")],
)
def test_losses_equal_those_of_the_cpu(runs: dict[str, Any], stack: str, kind: str) -> None:
    """5 steps of the same trainer, on the same completions."""
    result, expected = runs[stack][kind], runs["cpu"][kind]
    assert (result["device"], expected["device"]) == ("mps", "cpu")
    for ours, theirs in zip(result["inputs"], expected["inputs"], strict=True):
        names = [name for name in theirs if name.endswith("ids")]
        assert names and all(torch.equal(ours[name], theirs[name]) for name in names)
    assert len(expected["losses"]) == 5
    assert result["losses"] == pytest.approx(expected["losses"], rel=LOSS)


@pytest.mark.parametrize(
    ("stack", "kind"),
    [*(("trl", kind) for kind in ("gkd", *BETAS)), ("unsloth", "distillation"), ("unsloth", "gkd_online")],
)
def test_losses_equal_the_formula(runs: dict[str, Any], folder: Path, stack: str, kind: str) -> None:
    """5 steps on mps against 5 steps of the divergence's definition on the CPU."""
    result = runs[stack][kind]
    assert result["device"] == "mps"
    expected = formula(folder, result["inputs"], BETAS.get(kind, 0.5))
    assert len(expected) == 5
    assert result["losses"] == pytest.approx(expected, rel=LOSS)


def test_unsloth_trains_with_its_own_trainers(runs: dict[str, Any]) -> None:
    """Those that it rewrites are generated classes, the others TRL's."""
    for kind in PLAN["unsloth"]:
        assert runs["unsloth"][kind]["class"].startswith("Unsloth") == (kind in REWRITTEN)


@pytest.mark.parametrize("stack", ["trl", "unsloth"])
def test_the_divergence_is_no_triton_kernel_unless_asked_for(runs: dict[str, Any], stack: str) -> None:
    """DistillationTrainer computes with the project's operator; with TRL's where kernels run as they ship."""
    where = "trl.kernels" if unreplaced.asked_for() else "patcher.replacements.trl"
    assert set(runs[stack]["answers"]["divergence"]) == {f"{where}.chunked_divergence"}


@pytest.mark.parametrize("stack", ["trl", "unsloth"])
def test_vllm_is_refused_with_the_alternative(runs: dict[str, Any], stack: str) -> None:
    """Every configuration that can ask for it stops where it is created."""
    refusals = runs[stack]["answers"]["vllm"]
    assert len(refusals) == 6
    assert all("use_vllm=False" in text for text in refusals.values()), refusals


@pytest.mark.parametrize("stack", ["trl", "unsloth"])
def test_asynchronous_trainers_name_the_alternative(runs: dict[str, Any], stack: str) -> None:
    """They send weights to a vLLM server over NCCL; the message names the trainer that generates by itself."""
    servers = runs[stack]["answers"]["servers"]
    assert len(servers) == 4
    for name, text in servers.items():
        assert ("use trl.GRPOTrainer" if "grpo" in name else "use trl.DistillationTrainer") in text
