"""Generation through Unsloth on the simulated Mac: the tokens of transformers and PEFT on the CPU, without patches.

With fp32 weights but where said: then greedy tokens have one right answer, as the two highest logits of these models
differ by far more than fp32 rounds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import unreplaced
from tests.process import run_module

pytestmark = pytest.mark.slow

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2")
LAYERS, STEPS = 2, 11
"""Of the models; tokens that are decoded one by one where 12 are generated: the first comes with the prompt."""
FP32 = 64 * 2**-24
"""Relative, of logits: sums of up to 256 products round by 2^-24 times the root of that, 16; four follow each other."""
HALF_FACTOR = 1.5
"""How much further from fp32 than transformers in the same dtype on the CPU a run may be."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the models."""
    return tmp_path_factory.mktemp("generation")


@pytest.fixture(scope="module")
def found(models: Path) -> dict[str, dict[str, Any]]:
    """What `tests.e2e.generation` wrote: on the CPU, through Unsloth, and with transformers alone on mps."""
    for stack in ("cpu", "unsloth", "mps"):
        run_module(
            "tests.e2e.generation",
            models,
            models / f"{stack}.json",
            stack,
            timeout=1200,
            UNSLOTH_COMPILE_LOCATION=str(models / "compiled"),
        )
    return {stack: json.loads((models / f"{stack}.json").read_text()) for stack in ("cpu", "unsloth", "mps")}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_way_to_generate_gives_the_tokens_of_the_cpu(found: Any, family: str) -> None:
    """Greedy and beams, single and left-padded, with and without cache and LoRA; for Llama what else has one answer."""
    ours, theirs = found["unsloth"][family], found["cpu"][family]
    assert len(theirs) == {"llama": 19, "gemma2": 10}.get(family, 9)
    assert [name for name, tokens in theirs.items() if ours[name] != tokens] == []
    assert theirs["varied"] != theirs["lora, varied"]
    assert "gemma" in family or len(set(theirs["varied"][0])) > 12  # Gemma's tied embeddings repeat the last tokens
    assert len({tuple(row[-12:]) for row in theirs["batch"]}) == 2


def test_the_cases_are_what_they_say(found: Any) -> None:
    """Lengths, ends and streams of the reference: the cache grew, the criteria stopped, the streams were decoded."""
    theirs = found["cpu"]["llama"]
    prompt = len(theirs["one"][0]) - 12
    assert len(theirs["long"][0]) - prompt == 520 and len(theirs["long batch"][0]) > 520
    assert len(theirs["stopping"][0]) == 9 < len(theirs["one"][0])
    assert len(theirs["stop strings"][0]) < len(theirs["one"][0])
    assert theirs["streamed"] == theirs["streamed by a thread"] != ""
    assert theirs["static cache"] == theirs["no cache"] == theirs["one"]
    assert theirs["dictionary"][0] == theirs["one"][0][prompt:]


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_transformers_alone_on_mps_gives_them_too(found: Any, family: str) -> None:
    """The same cases without Unsloth, static cache included."""
    ours, theirs = found["mps"][family], found["cpu"][family]
    cases = [name for name in theirs if not name.startswith("lora")]
    assert len(cases) == {"llama": 16, "gemma2": 7}[family]
    assert [name for name in cases if ours[name] != theirs[name]] == []
    if family == "llama":
        assert ours["compiled"] == theirs["one"]


@pytest.mark.parametrize("stack", ["unsloth", "mps"])
def test_rollouts_share_their_prompts_and_end_apart(found: Any, stack: str) -> None:
    """Six rows of two prompts: four end within six tokens, one at 30; the looks are at 16 and 32.

    The last row has ended after 41 tokens, of which the prompt gives the first. transformers' own cache allows that the
    host does not wait for what it decides, so that one more is computed.
    """
    for family in FAMILIES if stack == "unsloth" else ("llama", "gemma2"):
        expected = [2, *[6] * 15, *[2] * 16, *[1] * (9 if stack == "unsloth" else 10)]
        assert found[stack][family]["rows"] == expected, family


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_come_from_unsloths_fast_decoding(found: Any, family: str) -> None:
    """Each token after the first: one call for the model, and one for the attention of each layer."""
    counts = found["unsloth"][family]["calls"]
    models = [name for name in counts if "Model" in name]
    attentions = [name for name in counts if "Attention" in name]
    assert [counts[name] for name in models] == [STEPS]
    assert [counts[name] for name in attentions] == [LAYERS * STEPS]
    kind = {"qwen3": "Qwen3", "gemma2": "Gemma2"}.get(family, "Llama")
    assert attentions == [f"{kind}Attention_fast_forward_inference"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_token_takes_the_kernels_that_are_known(found: Any, family: str) -> None:
    """Kernels for each decoded token, single and batched; docs/generation.md has the same figures.

    As they ship, Unsloth's Triton kernels are less kernels than the operators that replace them.
    """
    expected = {
        "llama": [144.5, 145.0],
        "qwen2": [150.5, 151.0],
        "qwen3": [180.5, 185.0],
        "mistral": [144.5, 145.0],
        "gemma": [154.5, 151.0],
        "gemma2": [184.5, 212.75],
    }[family]
    if unreplaced.asked_for():
        less = {"llama": 7, "qwen2": 7, "qwen3": 15, "mistral": 7, "gemma": 12, "gemma2": 0}[family]
        expected = [count - less for count in expected]
    # The count is exact; half a kernel for each token is less than any operator that came or went would be.
    assert found["unsloth"][family]["launches"] == pytest.approx(expected, abs=0.5)
    if family in found["mps"]:
        plain = {"llama": [122.0, 137.0], "gemma2": [199.0, 199.0]}
        assert found["mps"][family]["launches"] == pytest.approx(plain[family], abs=0.5)


def relative(logits: Any, reference: Any) -> float:
    """Root mean square of the difference, relative to that of the reference."""
    exact = torch.tensor(reference)
    return float((torch.tensor(logits) - exact).pow(2).mean().sqrt() / exact.pow(2).mean().sqrt())


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_16_bit_decoding_is_as_exact_as_transformers(found: Any, family: str) -> None:
    """The logits of each step along the CPU's tokens: fp32 within rounding, bf16 and fp16 no worse than on the CPU."""
    ours, theirs = found["unsloth"]["half"][family], found["cpu"]["half"][family]
    assert relative(ours["float32"], theirs["float32"]) <= FP32
    for dtype in ("bfloat16", "float16"):
        own = relative(theirs[dtype], theirs["float32"])
        assert 0 < relative(ours[dtype], theirs["float32"]) <= HALF_FACTOR * own, dtype


def test_4_bit_decoding_multiplies_packed_weights(found: Any) -> None:
    """NF4 in bf16: each linear layer of each token through fast_gemv; logits as exact as a dense model's in bf16."""
    ours = found["unsloth"]["4 bit"]
    assert ours["calls"]["fast_gemv"] == 7 * LAYERS * STEPS
    dense = found["cpu"]["half"]["llama"]
    assert relative(ours["logits"], found["cpu"]["4 bit"]["logits"]) <= HALF_FACTOR * relative(
        dense["bfloat16"], dense["float32"]
    )


@pytest.mark.parametrize("name", ["plain", "temperature, min_p", "top_p, top_k", "sequences", "beams"])
def test_a_seed_decides_what_is_sampled(found: Any, name: str) -> None:
    """torch.manual_seed gives the same tokens again, and another seed others."""
    first, again, other = found["unsloth"]["llama"]["samples"][name]
    assert first == again != other


def test_training_and_inference_change_places(found: Any) -> None:
    """A model in training generates the same tokens and stays in training; and again back in inference."""
    modes = found["unsloth"]["llama"]["modes"]
    expected = found["cpu"]["llama"]["one"]
    assert modes == {"in training": expected, "still": True, "back": expected, "training": False}


def test_chat_templates_end_with_the_assistants_turn(found: Any, models: Path) -> None:
    """ShareGPT messages in ChatML and Llama 3.1's form, and the CPU's tokens after them."""
    templates = found["unsloth"]["templates"]
    question = "What does the engineer repair?"
    assert templates["messages"] == [{"role": "user", "content": question}]
    assert templates["chatml"]["text"] == f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    assert templates["llama-3.1"]["text"].endswith(
        f"<|start_header_id|>user<|end_header_id|>\n\n{question}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    reference = AutoModelForCausalLM.from_pretrained(models / "llama", dtype=torch.float32).eval()
    for name in ("chatml", "llama-3.1"):
        prompt = torch.tensor(templates[name]["prompt"])
        tokens = reference.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False
        )
        assert templates[name]["tokens"] == tokens.tolist(), name
