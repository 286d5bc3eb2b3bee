"""Every trainer, through Unsloth and through TRL alone, on the simulated Mac, with bases of 16 and of 4 bit.

Each stack trains everything in one process, from the same start values; the weights of the base are bf16's. Computed in
fp32 the losses equal, on the CPU without patches: the plain formulas, which take the batches as the trainer's collator
made them, strip the padding, and compute row by row; and for bases of 4 bit TRL's trainers themselves, whose Triton
kernels run in Triton's interpreter there. Computed in 16 bit they are as close to fp32 as TRL in bf16 on the CPU is.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from tests.e2e.trainers_data import BATCH, RATE, STEPS, chats, pairs
from tests.e2e.trainers_formulas import texts_of, trained_losses
from tests.e2e.trainers_policy import advantages, aligned, log_probs, policy_loss
from tests.e2e.trainers_reference import compute_as_on_a_gpu, dtype_of, loaded, prepare, with_adapter, with_start_values
from tests.process import run_module

pytestmark = pytest.mark.slow

TRITON = Path(sys.prefix) / "oracle"
STACKS = ("trl", "unsloth")
TRAINERS = ("sft", "dpo", "kto", "orpo", "cpo", "simpo", "reward", "trainer", "seq2seq")
DATA = ("sft_packing", "sft_padding_free", "sft_completion", "sft_assistant")
BY_TRAINER = ("sft_peft_config", "dpo_peft_config")
ONLINE = ("grpo", "rloo")
HALF = {"bfloat16": 1.0, "nf4-bfloat16": 1.0, "float16": 1 / 8}
"""Precisions of 16 bit, and how large their roundings are beside those of bf16."""
PRECISIONS = ("float32", "nf4", *HALF)


def plan(stack: str) -> list[tuple[str, str]]:
    """What a stack trains: every trainer in every precision; in fp32 kinds of data sets, and `peft_config`."""
    if stack == "cpu":
        return [(kind, precision) for precision in ("nf4", "bfloat16") for kind in TRAINERS]
    data = (*DATA, *BY_TRAINER) if stack == "trl" else (*DATA, "sft_responses")
    matrix = [(kind, precision) for precision in PRECISIONS for kind in (*TRAINERS, *ONLINE)]
    return [*((kind, "float32") for kind in data), *matrix]


LOSS = 1e-4
"""Relative, over 6 steps of AdamW in fp32: rounding alone gives about 1e-6."""
ROUNDING = 4.5
"""Of two root mean squares of 6 rounding errors each one is at most so many times the other: the 99.9 % quantile of F
with 6 and 6 degrees of freedom is 20."""
LOG_PROB = {"float32": 1e-5, "nf4": 1e-5, **{name: 0.1 * size for name, size in HALF.items()}}
"""Absolute, for logits up to 20. fp32: eps is 1.2e-7, and a logit sums 128 products in another order. bf16: a logit of
4 to 8 is rounded by up to 2^-6, and so is what it is computed from, in two layers."""
GRADIENT = {"float32": 1e-4, "nf4": 1e-4, **{name: 0.1 * size for name, size in HALF.items()}}
"""Relative, per adapter tensor. fp32: sums over 256 tokens in another order. bf16: about 20 products of two layers,
forward and back, each rounded by 2^-9."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models and the start values."""
    folder = tmp_path_factory.mktemp("trainers")
    prepare(folder)
    return folder


class Runs:
    """What every trainer did; one process for each stack."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for stack in (*STACKS, "cpu"):
            self.train(stack)
        self.answers = {stack: json.loads((folder / stack / "answers.json").read_text()) for stack in STACKS}
        self.exact = cache(self._exact)

    def train(self, stack: str) -> None:
        out, spec = self.folder / stack, self.folder / f"{stack}.json"
        out.mkdir()
        spec.write_text(json.dumps({"stack": stack, "folder": str(self.folder), "out": str(out), "runs": plan(stack)}))
        # What torch.compile makes of the generated trainers is the business of other tests.
        switches = {"UNSLOTH_COMPILE_LOCATION": str(self.folder / "compiled"), "TORCHDYNAMO_DISABLE": "1"}
        if stack == "cpu":
            assert (TRITON / "triton").is_dir(), f"no Triton in {TRITON}: make {TRITON}"
            switches |= {"PYTHONPATH": str(TRITON), "TRITON_INTERPRET": "1"}
        run_module("tests.e2e.trainers", spec, timeout=900, **switches)

    def of(self, stack: str, kind: str, precision: str = "float32") -> dict[str, Any]:
        """The results of one run; its traceback if it failed."""
        result: dict[str, Any] = torch.load(self.folder / stack / f"{kind}-{precision}.pt")
        if "failed" in result:
            pytest.fail(f"{kind} in {precision} through {stack}:\n{result['failed']}")
        return result

    def start(self, kind: str, precision: str) -> Any:
        """The model that a run started from, on the CPU, in fp32 arithmetic."""
        model = loaded(self.folder, kind, "nf4" if precision.startswith("nf4") else "float32")[0]
        compute_as_on_a_gpu(model)
        return with_start_values(self.folder, kind, with_adapter(model, kind))

    def _exact(self, kind: str, precision: str) -> list[float]:
        """The losses that the formula gives in fp32."""
        return trained_losses(kind, self.start(kind, precision), self.of("trl", kind, precision)["batches"], RATE)


@pytest.fixture(scope="module")
def runs(folder: Path) -> Runs:
    return Runs(folder)


def off(losses: list[float], exact: list[float]) -> float:
    """The root mean square of the relative differences."""
    return (sum((ours / theirs - 1) ** 2 for ours, theirs in zip(losses, exact, strict=True)) / len(exact)) ** 0.5


# -- the matrix ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", [*TRAINERS, *ONLINE])
@pytest.mark.parametrize("stack", STACKS)
def test_a_trainer_trains_the_base_that_was_asked_for(runs: Runs, stack: str, kind: str, precision: str) -> None:
    """On mps, at least 5 steps, with Unsloth's own trainer where there is one, on weights of that many bits."""
    result = runs.of(stack, kind, precision)
    assert result["device"] == "mps"
    assert result["class"].startswith("Unsloth") == (stack == "unsloth" and kind not in ("trainer", "seq2seq"))
    assert len(result["losses"]) >= 5
    assert all(loss == loss and abs(loss) < 100 for loss in result["losses"])
    packed = {name for name, layer in result["layers"].items() if layer == "Linear4bit torch.uint8"}
    rest = {layer for name, layer in result["layers"].items() if name not in packed}
    assert len(packed) == (0 if "nf4" not in precision else 28 if kind == "seq2seq" else 14)
    # transformers keeps T5's wo in fp32 beside fp16; the trained head is in fp32 beside fp16.
    assert f"Linear {dtype_of(precision)}" in rest
    assert rest <= {f"Linear {dtype_of(precision)}", *(["Linear torch.float32"] if precision == "float16" else [])}


@pytest.mark.parametrize(
    ("stack", "kind"), [(s, k) for s in STACKS for k, p in plan(s) if p == "float32" and k not in ONLINE]
)
def test_losses_equal_the_formula(runs: Runs, stack: str, kind: str) -> None:
    """16-bit weights, 6 steps in fp32 on mps against 6 steps of the formula on the CPU."""
    result = runs.of(stack, kind)
    expected = trained_losses(kind, runs.start(kind, "float32"), result["batches"], RATE)
    assert len(expected) == STEPS
    assert result["losses"] == pytest.approx(expected, rel=LOSS)


@pytest.mark.parametrize("kind", TRAINERS)
@pytest.mark.parametrize("stack", STACKS)
def test_losses_with_a_4_bit_base_equal_trl_on_the_cpu(runs: Runs, stack: str, kind: str) -> None:
    """The same trainer without patches, on bitsandbytes' CPU backend; the formula agrees with it."""
    expected = runs.of("cpu", kind, "nf4")["losses"]
    assert runs.of(stack, kind, "nf4")["losses"] == pytest.approx(expected, rel=LOSS)
    assert expected == pytest.approx(runs.exact(kind, "nf4"), rel=LOSS)


@pytest.mark.parametrize("precision", HALF)
@pytest.mark.parametrize("kind", TRAINERS)
@pytest.mark.parametrize("stack", STACKS)
def test_losses_in_16_bit_are_rounded_as_on_the_cpu(runs: Runs, stack: str, kind: str, precision: str) -> None:
    """What a script uses: as far from fp32 as the same trainer in bf16 on the CPU is, up to chance; fp16 is nearer."""
    cpu = off(runs.of("cpu", kind, "bfloat16")["losses"], runs.exact(kind, "bfloat16"))
    assert (
        off(runs.of(stack, kind, precision)["losses"], runs.exact(kind, precision)) <= ROUNDING * HALF[precision] * cpu
    )


@pytest.mark.parametrize("kind", [*TRAINERS, *DATA])
def test_unsloth_equals_trl_alone(runs: Runs, kind: str) -> None:
    """The same tokens in the same order, and the same losses.

    Unsloth leaves padding out where TRL pads: then the texts are the same, but for the label of a first token, which is
    not predicted.
    """
    ours, alone = runs.of("unsloth", kind), runs.of("trl", kind)
    for mine, theirs in zip(ours["batches"], alone["batches"], strict=True):
        if "attention_mask" in theirs and "attention_mask" not in mine:
            texts = [*zip(texts_of(mine), texts_of(theirs), strict=True)]
            assert all(torch.equal(a, b) and torch.equal(p[1:], q[1:]) for (a, p), (b, q) in texts)
            continue
        shared = mine.keys() & theirs.keys()
        assert {name for name in theirs if name.endswith("ids")} <= shared
        assert all(torch.equal(mine[name], theirs[name]) for name in shared)
    assert ours["losses"] == pytest.approx(alone["losses"], rel=LOSS)


# -- data sets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stack", STACKS)
def test_packed_rows_hold_several_texts(runs: Runs, stack: str) -> None:
    """The first label of each text is left out, so that no text predicts the next one's beginning."""
    for batch in runs.of(stack, "sft_packing")["batches"]:
        texts = list(texts_of(batch))
        assert len(texts) > BATCH
        assert all(labels[0] == -100 and torch.equal(labels[1:], ids[1:]) for ids, labels in texts)


@pytest.mark.parametrize(
    ("stack", "kind"), [("trl", "sft_padding_free"), ("unsloth", "sft_padding_free"), ("unsloth", "sft")]
)
def test_rows_without_padding_hold_the_texts_of_a_batch(runs: Runs, stack: str, kind: str) -> None:
    """One row, no mask, as TRL makes it where it is asked for, and Unsloth without being asked."""
    for batch in runs.of(stack, kind)["batches"]:
        assert "attention_mask" not in batch and len(batch["input_ids"]) == 1
        assert len(list(texts_of(batch))) == BATCH


@pytest.mark.parametrize(
    ("stack", "kind"),
    [*((s, k) for s in STACKS for k in ("sft_completion", "sft_assistant")), ("unsloth", "sft_responses")],
)
def test_only_answers_have_labels(runs: Runs, folder: Path, stack: str, kind: str) -> None:
    """The text of the labelled tokens is that of the answers in the data set."""
    decode = AutoTokenizer.from_pretrained(folder / "llama").decode
    batches = runs.of(stack, kind)["batches"]
    found = [decode(labels[labels != -100]) for batch in batches for _, labels in texts_of(batch)]
    if kind == "sft_completion":
        assert found == [f"{end}<|end|>" for end in pairs()["chosen"]]
        return
    answers = [[turn["content"] for turn in chat if turn["role"] == "assistant"] for chat in chats()]
    for text, (first, second) in zip(found, answers, strict=True):
        assert text.replace("\n", "") in (f"{first}<|end|>{second}<|end|>", f" {first} {second}")


# -- GRPO and RLOO -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("kind", ONLINE)
def test_policy_gradients_equal_the_formula(runs: Runs, stack: str, kind: str, precision: str) -> None:
    """Log-probabilities, advantages and gradients of the completions that the trainer sampled first.

    The reference policy is a copy of the adapter, as TRL has it; in GRPO through Unsloth it is the base model.
    """
    result, model = runs.of(stack, kind, precision), runs.start(kind, precision)
    scored, base = result["scored"], (stack, kind) == ("unsloth", "grpo")
    now = log_probs(model, scored)
    before = [one.detach() for one in now]
    if base:
        with torch.no_grad(), model.disable_adapter():
            before = log_probs(model, scored)
    bound = LOG_PROB[precision]
    if kind == "rloo":
        assert scored["old_logps"] == pytest.approx(torch.stack([one.sum() for one in now]).detach(), abs=8 * bound)
    else:
        for row, expected in zip(aligned(scored), before, strict=True):
            assert row[: len(expected)] == pytest.approx(expected, abs=bound)
    divergence = torch.stack([(new.detach() - old).sum() for new, old in zip(now, before, strict=True)])
    expected = advantages(scored, kind, divergence)
    # In RLOO the KL is part of the reward, weighted by 0.01, and each of its two sums has 8 tokens.
    assert scored["advantages"] == pytest.approx(expected, abs=1e-4 + (0.02 * 8 * bound if kind == "rloo" else 0))
    policy_loss(kind, now, before, expected).backward()
    wanted = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert result["gradients"].keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (result["gradients"][name] - gradient).norm() <= GRADIENT[precision] * gradient.norm(), name


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("kind", ONLINE)
def test_reward_rises(runs: Runs, stack: str, kind: str, precision: str) -> None:
    """From the 1/16 of chance, over 24 or 14 steps of sampling on the device.

    Four steps are 128 completions of 8 tokens, in which chance has an error of 0.008: 0.1 is five of them away from it,
    0.3 is thirty.
    """
    rewards = runs.of(stack, kind, precision)["rewards"]
    assert sum(rewards[:4]) / 4 < 0.1
    assert sum(rewards[-4:]) / 4 > 0.3


@pytest.mark.parametrize("precision", PRECISIONS)
def test_unsloth_samples_with_its_fast_decoding(runs: Runs, precision: str) -> None:
    """4 projections in 2 layers for each token after the first, in every batch of completions."""
    for kind in ONLINE:
        result = runs.of("unsloth", kind, precision)
        assert result["fast_decoding"] >= len(result["rewards"]) * 2 * 4 * 2


# -- the rest ------------------------------------------------------------------------------------------------------


def test_seq2seq_generates_the_same_beside_unsloth_and_alone(runs: Runs) -> None:
    """Evaluation with predict_with_generate after training; both stacks give the same."""
    ours, alone = (runs.of(stack, "seq2seq") for stack in ("unsloth", "trl"))
    assert ours["predictions"] == alone["predictions"]
    assert len(ours["predictions"]) == 4
    assert ours["evaluation"]["eval_loss"] == pytest.approx(alone["evaluation"]["eval_loss"], rel=LOSS)
    assert ours["evaluation"]["eval_loss"] < ours["losses"][0]


@pytest.mark.parametrize("stack", STACKS)
def test_vllm_is_refused_with_the_alternative(runs: Runs, stack: str) -> None:
    """use_vllm=True stops where the configuration is created; fast_inference=True where Unsloth would load."""
    answers = runs.answers[stack]["vllm"]
    assert all("use_vllm=False" in answer for answer in answers[:2])
    assert len(answers) == (3 if stack == "unsloth" else 2)
    assert all("fast_inference=False" in answer and "model.generate()" in answer for answer in answers[2:])


def test_unsloth_starts_no_workers_for_data_sets(runs: Runs) -> None:
    """A script that asks for 4 gets the answer of macOS on the simulated Mac: None, in the training process."""
    assert runs.answers["unsloth"]["workers"] is None
