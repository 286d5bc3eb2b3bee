"""Every trainer, through Unsloth and through TRL alone, on the simulated Mac, against plain formulas on the CPU.

Each stack trains in one process, from the same start values, in fp32. The formulas take the batches as the trainer's
collator made them, strip the padding, and compute row by row.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    T5Config,
    T5ForConditionalGeneration,
)

from tests.e2e.models import VOCABULARY, save, tokenizer
from tests.e2e.process import clean_environment
from tests.e2e.trainers_data import BATCH, GROUP, KL, RATE, STEPS, chats, pairs
from tests.e2e.trainers_formulas import row_of, texts_of, token_log_probs, trained_losses

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
STACKS = ("trl", "unsloth")
OFFLINE = ("dpo", "kto", "orpo", "cpo", "simpo", "reward", "sft_packing", "sft_completion", "sft_assistant")
ONLINE = ("grpo", "rloo")
PLAN = {"trl": (*OFFLINE, "seq2seq", *ONLINE), "unsloth": (*OFFLINE, "sft_responses", "seq2seq", *ONLINE)}
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
HEAD = "base_model.model.score.modules_to_save.default.weight"

LOSS = 1e-4
"""Relative, over 6 steps of AdamW in fp32: rounding alone gives about 1e-6."""
LOG_PROB = 1e-5
"""Absolute, for values up to 20 in fp32: eps is 1.2e-7, and a logit sums 128 products in another order."""
GRADIENT = 1e-4
"""Relative, per adapter tensor: sums over 256 tokens in another order."""


def lora(task: str) -> LoraConfig:
    return LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=MODULES, task_type=task)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models and the start values; B of LoRA is not zero, so that the reference is not the base model."""
    folder = tmp_path_factory.mktemp("trainers")
    model = save("llama", folder)
    torch.manual_seed(1)
    config = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
    special = {"pad_token_id": 2, "eos_token_id": 1, "decoder_start_token_id": 2}
    T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, **config, **special)).save_pretrained(folder / "t5")
    tokenizer().save_pretrained(folder / "t5")
    peft = get_peft_model(AutoModelForCausalLM.from_pretrained(model), lora("CAUSAL_LM"))
    start = {name: torch.randn_like(p) * 0.05 for name, p in peft.named_parameters() if p.requires_grad}
    save_file(start, folder / "adapter.safetensors")
    save_file({HEAD: torch.randn(1, 128) * 0.1}, folder / "head.safetensors")
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, dict[str, Any]]:
    """What every trainer did, by stack and kind; one process for each stack."""
    results: dict[str, dict[str, Any]] = {}
    for stack in STACKS:
        out = folder / stack
        out.mkdir()
        files = {name: str(folder / f"{name}.safetensors") for name in ("adapter", "head")}
        spec = {"stack": stack, "model": str(folder / "llama"), "t5": str(folder / "t5"), "out": str(out), **files}
        (folder / f"{stack}.json").write_text(json.dumps({**spec, "kinds": PLAN[stack]}))
        done = subprocess.run(
            [sys.executable, "-m", "tests.e2e.trainers", str(folder / f"{stack}.json")],
            cwd=ROOT,
            # What torch.compile makes of the generated trainers is the business of other tests.
            env=clean_environment(UNSLOTH_COMPILE_LOCATION=str(folder / "compiled"), TORCHDYNAMO_DISABLE="1"),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{stack}: {done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        results[stack] = {kind: torch.load(out / f"{kind}.pt") for kind in PLAN[stack]}
        results[stack]["answers"] = json.loads((out / "answers.json").read_text())
    return results


def reference(folder: Path, kind: str) -> Any:
    """The model that this kind of trainer started from, on the CPU."""
    if kind == "seq2seq":
        return AutoModelForSeq2SeqLM.from_pretrained(folder / "t5")
    start = load_file(folder / "adapter.safetensors")
    if kind == "reward":
        classifier = AutoModelForSequenceClassification.from_pretrained(folder / "llama", num_labels=1)
        peft = get_peft_model(classifier, lora("SEQ_CLS"))
        start |= load_file(folder / "head.safetensors")
    else:
        peft = get_peft_model(AutoModelForCausalLM.from_pretrained(folder / "llama"), lora("CAUSAL_LM"))
    trained = {name: p for name, p in peft.named_parameters() if p.requires_grad}
    assert trained.keys() == start.keys()
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(start[name])
    return peft


@pytest.mark.parametrize(("stack", "kind"), [(s, k) for s in STACKS for k in PLAN[s] if k not in ONLINE])
def test_losses_equal_the_formula(runs: dict[str, Any], folder: Path, stack: str, kind: str) -> None:
    """6 steps of the trainer on mps against 6 steps of its formula on the CPU."""
    result = runs[stack][kind]
    assert result["device"] == "mps"
    assert result["class"].startswith("Unsloth") == (stack == "unsloth" and kind != "seq2seq")
    expected = trained_losses(kind, reference(folder, kind), result["batches"], RATE)
    assert len(expected) == STEPS
    assert result["losses"] == pytest.approx(expected, rel=LOSS)


@pytest.mark.parametrize("kind", [*OFFLINE, "seq2seq"])
def test_unsloth_equals_trl_alone(runs: dict[str, Any], kind: str) -> None:
    """The same tokens in the same order, and the same losses."""
    ours, alone = runs["unsloth"][kind], runs["trl"][kind]
    for mine, theirs in zip(ours["batches"], alone["batches"], strict=True):
        shared = mine.keys() & theirs.keys()
        assert {name for name in theirs if name.endswith("ids")} <= shared
        assert all(torch.equal(mine[name], theirs[name]) for name in shared)
    assert ours["losses"] == pytest.approx(alone["losses"], rel=LOSS)


@pytest.mark.parametrize("stack", STACKS)
def test_packed_rows_hold_several_texts(runs: dict[str, Any], stack: str) -> None:
    """The first label of each text is left out, so that no text predicts the next one's beginning."""
    for batch in runs[stack]["sft_packing"]["batches"]:
        texts = list(texts_of(batch))
        assert len(texts) > BATCH
        assert all(labels[0] == -100 and torch.equal(labels[1:], ids[1:]) for ids, labels in texts)


@pytest.mark.parametrize(
    ("stack", "kind"),
    [*((s, k) for s in STACKS for k in ("sft_completion", "sft_assistant")), ("unsloth", "sft_responses")],
)
def test_only_answers_have_labels(runs: dict[str, Any], folder: Path, stack: str, kind: str) -> None:
    """The text of the labelled tokens is that of the answers in the data set."""
    decode = AutoTokenizer.from_pretrained(folder / "llama").decode
    batches = runs[stack][kind]["batches"]
    found = [decode(labels[labels != -100]) for batch in batches for labels in batch["labels"]]
    if kind == "sft_completion":
        assert found == [f"{end}<|end|>" for end in pairs()["chosen"]]
        return
    answers = [[turn["content"] for turn in chat if turn["role"] == "assistant"] for chat in chats()]
    for text, (first, second) in zip(found, answers, strict=True):
        assert text.replace("\n", "") in (f"{first}<|end|>{second}<|end|>", f" {first} {second}")


def completions(scored: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Prompts and completions without their padding."""
    names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
    return [(row_of(p, pm), row_of(c, cm)) for p, pm, c, cm in zip(*(scored[name] for name in names), strict=True)]


def log_probs(model: Any, scored: dict[str, Tensor]) -> list[Tensor]:
    """log p of every token of every completion."""
    return [token_log_probs(model, torch.cat(pair))[len(pair[0]) - 1 :] for pair in completions(scored)]


def advantages(scored: dict[str, Tensor], kind: str, divergence: Tensor) -> Tensor:
    """GRPO: Shao et al. 2024, section 4.1.2. RLOO: Ahmadian et al. 2024, equation 4, with the KL in the reward."""
    rewards = torch.stack([(ids % 16 == 0).float().mean() for _, ids in completions(scored)])
    if kind == "grpo":
        groups = rewards.view(-1, GROUP)
        return ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()
    groups = (rewards - KL * divergence).view(-1, GROUP)
    others = (groups.sum(1, keepdim=True) - groups) / (GROUP - 1)
    return (groups - others).flatten()


def policy_loss(kind: str, now: list[Tensor], before: list[Tensor], advantage: Tensor) -> Tensor:
    """Before the first update, when the ratio of policies is 1: GRPO's equation 3, with the KL weighted by the ratio
    (``use_bias_correction_kl``, TRL's default); RLOO's equation 3 with PPO's ratio."""
    losses = []
    for new, old, weight in zip(now, before, advantage, strict=True):
        if kind == "rloo":
            losses.append(-weight * (new.sum() - new.sum().detach()).exp())
        else:
            ratio, divergence = (new - new.detach()).exp(), (old - new).exp() - (old - new) - 1
            losses.append((ratio * (KL * divergence - weight)).mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("kind", ONLINE)
def test_policy_gradients_equal_the_formula(runs: dict[str, Any], folder: Path, stack: str, kind: str) -> None:
    """Log-probabilities, advantages and gradients of the completions that the trainer sampled first.

    The reference policy is a copy of the adapter, as TRL has it; in GRPO through Unsloth it is the base model.
    """
    result, model = runs[stack][kind], reference(folder, kind)
    scored, base = result["scored"], (stack, kind) == ("unsloth", "grpo")
    now = log_probs(model, scored)
    before = [one.detach() for one in now]
    if base:
        with torch.no_grad(), model.disable_adapter():
            before = log_probs(model, scored)
    if kind == "rloo":
        assert scored["old_logps"] == pytest.approx(torch.stack([one.sum() for one in now]).detach(), abs=8 * LOG_PROB)
    else:
        for row, expected in zip(aligned(scored), before, strict=True):
            assert row[: len(expected)] == pytest.approx(expected, abs=LOG_PROB)
    divergence = torch.stack([(new.detach() - old).sum() for new, old in zip(now, before, strict=True)])
    expected = advantages(scored, kind, divergence)
    assert scored["advantages"] == pytest.approx(expected, abs=1e-4)
    policy_loss(kind, now, before, expected).backward()
    wanted = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert result["gradients"].keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (result["gradients"][name] - gradient).norm() <= GRADIENT * gradient.norm(), name


def aligned(scored: dict[str, Tensor]) -> list[Tensor]:
    """The reference log-probabilities by completion; Unsloth moves the padding of the prompts to the right end."""
    rows = scored["ref_per_token_logps"]
    padding = (scored["prompt_mask"] == 0).sum(1)
    width = rows.shape[1] - scored["completion_ids"].shape[1]
    return [row[width - shift :] if width else row for row, shift in zip(rows, padding.tolist(), strict=True)]


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("kind", ONLINE)
def test_reward_rises(runs: dict[str, Any], stack: str, kind: str) -> None:
    """From the 1/16 of chance, over 24 steps of sampling on the device."""
    rewards = runs[stack][kind]["rewards"]
    assert sum(rewards[:4]) / 4 < 0.1
    assert sum(rewards[-4:]) / 4 > 0.3


def test_unsloth_samples_with_its_fast_decoding(runs: dict[str, Any]) -> None:
    """4 projections in 2 layers for each token after the first, in 24 batches of completions."""
    for kind in ONLINE:
        assert runs["unsloth"][kind]["fast_decoding"] >= 24 * 2 * 4 * 2


def test_seq2seq_generates_the_same_beside_unsloth_and_alone(runs: dict[str, Any], folder: Path) -> None:
    """Evaluation with predict_with_generate after training; both stacks give the same."""
    ours, alone = (runs[stack]["seq2seq"] for stack in ("unsloth", "trl"))
    assert ours["predictions"] == alone["predictions"]
    assert len(ours["predictions"]) == 4
    assert ours["evaluation"]["eval_loss"] == pytest.approx(alone["evaluation"]["eval_loss"], rel=LOSS)
    assert ours["evaluation"]["eval_loss"] < ours["losses"][0]


@pytest.mark.parametrize("stack", STACKS)
def test_vllm_is_refused_with_the_alternative(runs: dict[str, Any], stack: str) -> None:
    """use_vllm=True stops where the configuration is created."""
    answers = runs[stack]["answers"]["vllm"]
    assert len(answers) == 2
    assert all("use_vllm=False" in answer for answer in answers)


def test_unsloth_starts_no_workers_for_data_sets(runs: dict[str, Any]) -> None:
    """A script that asks for 4 gets the answer of macOS on the simulated Mac: None, in the training process."""
    assert runs["unsloth"]["answers"]["workers"] is None
