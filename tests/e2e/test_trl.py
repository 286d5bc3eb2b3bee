"""SFT and DPO through TRL alone, without Unsloth, on the simulated Mac, against loops in plain torch on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, logsigmoid
from transformers import AutoModelForCausalLM

from tests.e2e.models import save
from tests.e2e.process import clean_environment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
LOSS = 1e-4
"""Relative, as for every training in fp32: rounding alone gives about 1e-6."""
BETA, RATE, BATCH = 0.5, 1e-3, 2


def trl(kind: str, model: Path, out: Path) -> dict[str, Any]:
    """What TRL's trainer did in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.train_trl", kind, str(model), str(out)],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    result: dict[str, Any] = json.loads(out.read_text())
    return result


def reference(model: Path, out: Path) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """The same model on the CPU with the adapter that TRL started from, and its optimizer."""
    config = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["q_proj", "v_proj", "down_proj"])
    peft = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    start = load_file(f"{out}.safetensors")
    trained = {name: p for name, p in peft.named_parameters() if p.requires_grad}
    assert trained.keys() == start.keys()
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(start[name])
    return peft, torch.optim.AdamW(trained.values(), lr=RATE, weight_decay=0.0)


def log_prob(model: torch.nn.Module, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """log p(answer | prompt), summed over the answer's tokens."""
    ids = torch.tensor([prompt + answer])
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    return -cross_entropy(logits, ids[0, len(prompt) :], reduction="sum")


def test_sft_equals_a_plain_loop(tmp_path: Path) -> None:
    """Token-mean cross entropy over batches of 2, AdamW."""
    model, out = save("llama", tmp_path), tmp_path / "sft.json"
    result = trl("sft", model, out)
    assert result["device"] == "mps:0"
    peft, optimizer = reference(model, out)
    losses = []
    for start in range(0, len(result["rows"]), BATCH):
        rows = [torch.tensor(row["input_ids"]) for row in result["rows"][start : start + BATCH]]
        total = sum(cross_entropy(peft(input_ids=ids[None]).logits[0, :-1], ids[1:], reduction="sum") for ids in rows)
        loss = total / sum(len(ids) - 1 for ids in rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert result["losses"] == pytest.approx(losses, rel=LOSS)


def test_dpo_equals_the_formula(tmp_path: Path) -> None:
    """-log sigmoid(beta ((pi_c - pi_r) - (ref_c - ref_r))), Rafailov et al. 2023, equation 7; AdamW."""
    model, out = save("llama", tmp_path), tmp_path / "dpo.json"
    result = trl("dpo", model, out)
    assert result["device"] == "mps:0"
    peft, optimizer = reference(model, out)
    losses = []
    for start in range(0, len(result["rows"]), BATCH):
        margins = []
        for row in result["rows"][start : start + BATCH]:
            sides = [(row["prompt_ids"], row[side]) for side in ("chosen_ids", "rejected_ids")]
            with torch.no_grad(), peft.disable_adapter():  # type: ignore[operator]
                reference_margin = log_prob(peft, *sides[0]) - log_prob(peft, *sides[1])
            margins.append(log_prob(peft, *sides[0]) - log_prob(peft, *sides[1]) - reference_margin)
        loss = -logsigmoid(BETA * torch.stack(margins)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(0.6931472, rel=1e-6)
    assert result["losses"] == pytest.approx(losses, rel=LOSS)
