"""4-bit and 8-bit bases on the simulated Mac: the codes, the memory, training, generation and saving.

Oracle: bitsandbytes, transformers and PEFT on the CPU without patches, kept there from two things that they do on a CPU
only: 4-bit products in bf16, and LLM.int8 without rounding the inputs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes import functional
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.e2e.models import save
from tests.process import run_module

pytestmark = pytest.mark.slow

KINDS = ("nf4", "fp4", "int8")
Tensors = dict[str, torch.Tensor]

LOSS = {"nf4": 1e-4, "fp4": 1e-4, "int8": 1e-3}
"""Relative, over 20 steps. LLM.int8 rounds every input to 8 bit: a difference of 1e-7 moves some inputs to the next
code, and the reference's own losses then differ by 3e-4 (four runs with adapters jittered by 2e-7 relative)."""
GRADIENT = 1e-3
"""Relative, per adapter tensor, at the first step; one nested scale of another code changes one by about 1e-4."""
HALF_FACTOR = 1.5
"""How much further from the fp32 run than transformers and PEFT in bf16 on mps Unsloth may be."""


def start(folder: Path, module: str, *arguments: str) -> None:
    """Runs a module of this folder in a fresh process; its whole output is shown if it fails."""
    run_module(f"tests.e2e.{module}", *arguments, UNSLOTH_COMPILE_LOCATION=str(folder / "compiled"))


# -- codes ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensors, Tensors]:
    """What `quantize` wrote on the simulated Mac and on the CPU."""
    folder = tmp_path_factory.mktemp("codes")
    for device in ("mps", "cpu"):
        start(folder, "quantize", device, str(folder / device))
    return load_file(folder / "mps"), load_file(folder / "cpu")


def test_codes_and_statistics_are_those_of_the_cpu_bit_for_bit(codes: tuple[Tensors, Tensors]) -> None:
    """NF4, FP4 and LLM.int8: codes, scales, nested statistics and dequantized values; odd shapes and three dtypes."""
    ours, theirs = codes
    compared = [name for name in theirs if not ("nested" in name and name.endswith(("1024/absmax", "1024/values")))]
    assert len(compared) == len(theirs) - 12
    assert [name for name in compared if not torch.equal(ours[name], theirs[name])] == []


def test_nested_scales_are_the_nearest_codes(codes: tuple[Tensors, Tensors]) -> None:
    """Of 16384 scales each has the nearest 8-bit code in fp64; the CPU's table of 2^-15 steps misses it for a few."""
    ours, theirs = codes
    large = [name.removesuffix("/absmax") for name in theirs if "nested" in name and name.endswith("1024/absmax")]
    assert len(large) == 6
    for name in large:
        table, found = ours[f"{name}/nested_code"].double(), ours[f"{name}/absmax"].long()
        scale = ours[f"{name}/nested_absmax"].double()[:, None]
        exact = (ours[f"{name}/statistics"].double().view(-1, 256) / scale).flatten()
        distance = (exact[:, None] - table).abs()
        assert torch.equal(distance[torch.arange(len(found)), found], distance.min(1).values), name
        apart = (found - theirs[f"{name}/absmax"].long()).abs()
        assert apart.max() <= 1 and (apart != 0).float().mean() < 0.005, name


def test_loftq_starts_from_the_best_low_rank_correction(codes: tuple[Tensors, Tensors]) -> None:
    """PEFT's LoftQ on mps: an NF4 base, and adapters that are the rank 8 part of its error in an fp64 SVD."""
    dense, base, product = (codes[0][f"loftq/{part}"] for part in ("dense", "base", "product"))
    packed, state = functional.quantize_4bit(dense, quant_type="nf4", compress_statistics=False)
    assert torch.equal(base, functional.dequantize_4bit(packed, state))
    u, s, v = torch.linalg.svd((dense - base).double())
    best = u[:, :8] * s[:8] @ v[:8]
    # fp32 SVD: eps times the norm over the gap of the singular values, about 100 here.
    assert (product - best).norm() <= 100 * 2**-23 * s[0] * best.shape[0] ** 0.5


# -- training ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What one training wrote."""

    losses: list[float]
    gradients: Tensors
    tokens: list[list[int]]
    paths: list[str]
    stored: dict[str, list[Any]]
    allocated: int | None

    @classmethod
    def read(cls, folder: Path) -> Run:
        result = json.loads((folder / "result.json").read_text())
        return cls(gradients=load_file(folder / "gradients.safetensors"), **result)


@dataclass(frozen=True)
class Trained:
    """All runs by stack, quantization and dtype, and the folder of what they saved."""

    folder: Path
    runs: dict[str, Run]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A Llama trained on the CPU first, which makes the initial adapter and the pre-quantized checkpoint."""
    folder = tmp_path_factory.mktemp("trained")
    model, base = str(save("llama", folder)), str(folder / "small-bnb-4bit")
    runs: dict[str, Run] = {}

    def train(stack: str, plan: list[tuple[str, str]], **saved: str) -> None:
        initial = folder / "cpu-nf4-float32" / "initial.safetensors"
        todo = []
        for kind, dtype in plan:
            first = (stack, kind) == ("cpu", "nf4")
            run = {"quantization": kind, "dtype": dtype, "out": str(folder / f"{stack}-{kind}-{dtype}")}
            run |= {"adapter": None if first else str(initial), "model": base if kind == "stored" else model}
            run["compiled"] = kind == "nf4"  # code compiled around other layers is the same
            todo.append({**run, **(saved if (kind, dtype) == ("nf4", "float32") else {})})
        common = {"stack": stack, "runs": todo, "sentences": 6, "max_length": 256, "steps": 20, "checkpointing": True}
        (folder / f"{stack}.json").write_text(json.dumps(common))
        start(folder, "train_4bit", str(folder / f"{stack}.json"))
        for run in todo:
            runs[Path(run["out"]).name] = Run.read(Path(run["out"]))

    exact = [(kind, "float32") for kind in KINDS]
    train("cpu", exact, base=base)
    train("unsloth", [*exact, ("stored", "float32"), ("nf4", "bfloat16")], merged=str(folder / "merged"))
    train("mps", [*exact, ("nf4", "bfloat16")])
    return Trained(folder, runs)


@pytest.mark.parametrize("stack", ["unsloth", "mps"])
@pytest.mark.parametrize("kind", KINDS)
def test_training_equals_the_cpu(trained: Trained, stack: str, kind: str) -> None:
    """20 losses and the first gradients of every adapter; "mps" is transformers' Trainer, without a device_map."""
    ours, reference = trained.runs[f"{stack}-{kind}-float32"], trained.runs[f"cpu-{kind}-float32"]
    assert len(reference.losses) == 20
    assert reference.losses[-1] < 0.95 * reference.losses[0]
    assert ours.losses == pytest.approx(reference.losses, rel=LOSS[kind])
    assert ours.losses[:2] == pytest.approx(reference.losses[:2], rel=1e-5)
    assert ours.gradients.keys() == reference.gradients.keys()
    assert len(reference.gradients) == 2 * 7 * 2
    for name, expected in reference.gradients.items():
        assert (ours.gradients[name] - expected).norm() <= GRADIENT * expected.norm(), name


@pytest.mark.parametrize("stack", ["unsloth", "mps"])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_generation_equals_the_cpu(trained: Trained, stack: str, kind: str) -> None:
    """The greedy tokens of the trained model, through Unsloth's decoding and through transformers'."""
    assert trained.runs[f"{stack}-{kind}-float32"].tokens == trained.runs[f"cpu-{kind}-float32"].tokens


@pytest.mark.parametrize("stack", ["unsloth", "mps"])
@pytest.mark.parametrize(("kind", "layer", "bits"), [("nf4", "Linear4bit", 4), ("int8", "Linear8bitLt", 8)])
def test_the_weights_in_memory_have_4_or_8_bits(trained: Trained, stack: str, kind: str, layer: str, bits: int) -> None:
    """Every linear layer but the head is stored in that many bits per weight on mps, with the CPU's codes."""
    stored = trained.runs[f"{stack}-{kind}-float32"].stored
    reference = trained.runs[f"cpu-{kind}-float32"].stored
    assert stored.keys() == reference.keys() and len(stored) == 15
    for name, (found, device, size, values, digest) in stored.items():
        assert device == "mps", name
        if name != "lm_head":
            assert (found, 8 * size) == (layer, bits * values), name
            assert digest == reference[name][4], name


def test_the_device_holds_no_second_copy(trained: Trained) -> None:
    """After loading NF4 the allocator holds embeddings, head, norms and 4-bit weights: no dense ones behind them."""
    run = trained.runs["unsloth-nf4-float32"]
    packed = sum(size for name, (_, _, size, _, _) in run.stored.items() if name != "lm_head")
    dense = 2 * 512 * 128 * 4
    would_be = sum(4 * values for name, (_, _, _, values, _) in run.stored.items() if name != "lm_head")
    assert run.allocated is not None
    assert packed + dense < run.allocated < packed + dense + would_be / 8


def test_a_pre_quantized_checkpoint_trains_like_its_origin(trained: Trained) -> None:
    """A folder that transformers saved in 4 bit on the CPU: the same codes, and losses within fp32 rounding."""
    ours, reference = trained.runs["unsloth-stored-float32"], trained.runs["cpu-nf4-float32"]
    assert {n: v[4] for n, v in ours.stored.items()} == {n: v[4] for n, v in reference.stored.items()}
    assert ours.losses == pytest.approx(reference.losses, rel=LOSS["nf4"])
    assert ours.tokens == reference.tokens


def test_bf16_training_is_as_exact_as_peft(trained: Trained) -> None:
    """What a user runs: bf16 arithmetic through Unsloth's fused LoRA functions over NF4."""
    reference = torch.tensor(trained.runs["cpu-nf4-float32"].losses)
    ours, theirs = trained.runs["unsloth-nf4-bfloat16"], trained.runs["mps-nf4-bfloat16"]
    ours_off, theirs_off = ((torch.tensor(r.losses) / reference - 1).pow(2).mean().sqrt() for r in (ours, theirs))
    assert ours_off <= HALF_FACTOR * theirs_off
    assert {"LoRA_MLPBackward", "LoRA_QKVBackward", "LoRA_WBackward"} <= set(ours.paths)


def test_merged_16_bit_is_the_original_with_the_adapter(trained: Trained) -> None:
    """Unsloth merges into the checkpoint that was quantized, not into its 4-bit values: W + 2 B A, bit for bit."""
    merged = load_file(trained.folder / "merged" / "model.safetensors")
    original = load_file(trained.folder / "llama" / "model.safetensors")
    adapter = load_file(trained.folder / "unsloth-nf4-float32" / "trained.safetensors")
    assert merged.keys() == original.keys()
    changed = 0
    for name, weight in original.items():
        place = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{place}.lora_A.default.weight" in adapter:
            weight = weight + 2 * adapter[f"{place}.lora_B.default.weight"] @ adapter[f"{place}.lora_A.default.weight"]
            changed += 1
        assert (merged[name] - weight).abs().max() <= 2**-22 * weight.abs().max(), name
    assert changed == 14


# -- mixture of experts --------------------------------------------------------------------------------------------


def test_experts_are_quantized_and_train_or_are_refused_by_name(tmp_path: Path) -> None:
    """Qwen3-MoE: experts in NF4 with the CPU's codes, the dense model's loss, and training; gpt-oss is refused."""
    start(tmp_path, "moe_4bit", str(tmp_path))
    result = json.loads((tmp_path / "result.json").read_text())
    codes = load_file(tmp_path / "codes.safetensors")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "qwen3_moe", dtype=torch.float32)
    weights = dict(model.named_parameters())
    assert sum("experts" in name for name in codes) == 2 * 2
    for name, found in codes.items():
        assert torch.equal(found, functional.quantize_4bit(weights[name].data, quant_type="nf4")[0]), name
    model.load_state_dict(load_file(tmp_path / "dequantized.safetensors"))
    rows = torch.arange(3, 35)[None]
    with torch.no_grad():
        expected = model(input_ids=rows, labels=rows).loss.item()
    assert result["loss"] == pytest.approx(expected, rel=2**-9)  # Unsloth computes experts in bf16
    assert result["trained"][0] == pytest.approx(expected, rel=2**-9)
    assert result["trained"][-1] < 0.8 * result["trained"][0]
    assert len(result["generated"]) == 4
    assert "gpt-oss in 4 bit" in result["gpt_oss"] and "load_in_4bit=False" in result["gpt_oss"]


# -- optimizers ----------------------------------------------------------------------------------------------------


def test_paged_optimizers_train_as_their_unpaged_form() -> None:
    """Made by the script, for parameters that bitsandbytes would page, with a load_state_dict in between."""
    run = run_module("tests.e2e.paged", timeout=300)
    found = json.loads(run.stdout.strip().splitlines()[-1])
    assert len(found) == 11 and all(found.values()), found
    assert run.stderr.count("PagedAdamW8bit: its state is not paged") == 1
