"""Loading a sharded model of 212 MiB on the simulated Mac: where it lands, and the memory of device and host.

The host's memory is the simulated device's, as on a Mac: the peak of the process is that of both together, and Linux
keeps it to the page (VmHWM). Large blocks are given back as soon as they are freed (glibc's thresholds), so that a
second copy of anything would be seen.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.e2e.models import tokenizer
from tests.process import run_module

pytestmark = pytest.mark.slow

MIB = 2**20
Loads = dict[str, dict[str, Any]]

SHARD = 64 * MIB
LARGEST = 4096 * 1024 * 2
"""Bytes of the largest tensor, the embeddings in bf16."""
LINEAR = 8 * (4 * 1024 * 1024 + 3 * 1024 * 2816)
"""Weights of the 56 linear layers that are quantized; embeddings, head and norms are not."""
KEPT = (2 * 4096 * 1024 + 8 * 2 * 1024 + 1024) * 2
WEIGHTS = KEPT + 2 * LINEAR
BUFFERS = 2 * 32 * 4
"""The two buffers of rotary frequencies, in fp32; they are computed anew before the first ones go."""
TABLES = 56 * 2048
"""At most so much for the 16 values, and the 256 of a nested code, of each layer; both in fp32, 1088 bytes."""
QUANTIZED = {
    "NF4": KEPT + LINEAR // 2 + LINEAR // 64 * 4 + TABLES,
    "NF4, double": KEPT + LINEAR // 2 + LINEAR // 64 + LINEAR // (64 * 256) * 4 + TABLES,
    "8 bit": KEPT + LINEAR + 8 * (5 * 1024 + 2 * 2816) * 4 + TABLES,
}
"""Codes, and an fp32 scale for each block of 64, of a byte and with an fp32 scale for 256 of them, or for each row."""
SMALL = 8 * MIB
"""Python's own objects, and pages of libraries that are touched for the first time."""
RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Loads]]:
    """What `tests.e2e.loading` wrote for transformers alone and for Unsloth."""
    folder = tmp_path_factory.mktemp("loading")
    save(folder / "model")
    for stack in ("plain", "unsloth"):
        run_module(
            "tests.e2e.loading",
            folder / "model",
            folder / f"{stack}.json",
            stack,
            timeout=900,
            UNSLOTH_COMPILE_LOCATION=str(folder / "compiled"),
            **RETURNED,
        )
    return {stack: json.loads((folder / f"{stack}.json").read_text()) for stack in ("plain", "unsloth")}


def save(folder: Path) -> None:
    """A Llama in bf16, in four shards, with a tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=8,
        num_attention_heads=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    LlamaForCausalLM._from_config(config, dtype=torch.bfloat16).save_pretrained(folder, max_shard_size="64MB")
    tokenizer().save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) == 4


def dense(loads: Loads) -> Loads:
    """The loads that neither convert nor quantize nor begin on the CPU."""
    return {name: load for name, load in loads.items() if name not in CONVERTED}


CONVERTED = {"float16", "float32", "CPU, then mps", "NF4", "NF4, double", "8 bit"}


@pytest.mark.parametrize(("stack", "count"), [("plain", 10), ("unsloth", 3)])
def test_every_device_map_loads_the_files_bits_straight_to_mps(found: Any, stack: str, count: int) -> None:
    """All parameters on mps, bit for bit, without hooks; the device's peak is the model."""
    loads = dense(found[stack]["loads"])
    assert len(loads) == count
    for name, load in loads.items():
        assert (load["devices"], load["dtypes"]) == (["mps"], ["torch.bfloat16"]), name
        assert (load["wrong"], load["hooks"]) == ([], 0), name
        assert WEIGHTS <= load["held"] <= load["peak"] <= WEIGHTS + 3 * BUFFERS, name


@pytest.mark.parametrize("stack", ["plain", "unsloth"])
def test_the_host_holds_one_tensor_and_no_second_copy(found: Any, stack: str) -> None:
    """Device and host together: the model and the tensor that is being read."""
    for name, load in dense(found[stack]["loads"]).items():
        assert load["together"] <= WEIGHTS + LARGEST + SMALL, name


@pytest.mark.parametrize("stack", ["plain", "unsloth"])
def test_a_change_of_dtype_holds_one_tensor_in_both(found: Any, stack: str) -> None:
    """The device's peak is the model in the new dtype and one tensor in the old one: no copy in fp32, no pile."""
    expected = {"float16": WEIGHTS, "float32": 2 * WEIGHTS}
    converted = {name: load for name, load in found[stack]["loads"].items() if name in expected}
    assert len(converted) == (2 if stack == "plain" else 1)
    for name, load in converted.items():
        assert (load["devices"], load["dtypes"]) == (["mps"], [f"torch.{name}"])
        assert load["held"] <= expected[name] + BUFFERS
        assert load["peak"] <= expected[name] + BUFFERS + LARGEST
        assert load["together"] <= expected[name] + 2 * LARGEST + SMALL


def test_a_model_on_the_cpu_moves_tensor_by_tensor(found: Any) -> None:
    """Loaded without device_map, then .to("mps"): a shard's file stays mapped until its last tensor has moved."""
    load = found["plain"]["loads"]["CPU, then mps"]
    assert load["devices"] == ["mps"] and load["wrong"] == []
    assert load["peak"] <= WEIGHTS + BUFFERS
    assert load["together"] <= WEIGHTS + SHARD + SMALL


@pytest.mark.parametrize(("stack", "name"), [("plain", "NF4"), ("plain", "8 bit"), ("unsloth", "NF4, double")])
def test_a_quantized_model_is_never_whole_in_16_bit(found: Any, stack: str, name: str) -> None:
    """One dense weight at a time: the device's peak stays below half of the dense model."""
    load = found[stack]["loads"][name]
    assert load["devices"] == ["mps"]
    # Quantizing 2^21 values without a compiler takes at most 24 bytes for each, beside their weight in 16 bit.
    assert load["peak"] <= load["held"] + 24 * 2**21 + 2 * 2816 * 1024
    assert load["codes"] is (None if name == "8 bit" else True)
    assert load["held"] <= QUANTIZED[name] + BUFFERS


def test_what_a_model_takes_is_known_to_the_byte(found: Any) -> None:
    """What `patcher.macs.fit` says before loading is what the device holds after it.

    Quantized ones: but for tables that bitsandbytes keeps once for the process. Unsloth's rotary buffers are the CPU's.
    """
    known = [(name, load) for stack in found.values() for name, load in stack["loads"].items() if load["needed"]]
    assert len(known) == 10 + 2 + 2 + 3 + 1 + 1
    for name, load in known:
        tables = 2048 if name in ("NF4", "NF4, double", "8 bit") else 0
        assert -BUFFERS <= load["held"] - load["needed"] <= tables, name


def test_what_cannot_fit_is_refused_before_anything_is_read(found: Any) -> None:
    """202 MiB for a model of 212: the error says both, and what would fit; nothing was allocated."""
    refused = {**found["plain"]["refusals"], **found["unsloth"]["refusals"]}
    for name in ("mps", "auto", "unsloth"):
        assert refused[name]["type"] == "ModelDoesNotFit", refused[name]
        assert refused[name]["grown"] < 64  # a scalar that torch asks the device about
        for text in (
            "parameters in bfloat16",
            "0.21 GiB",
            "0.20 GiB",
            "load_in_4bit=True",
            "66.6 MiB",
        ):
            assert text in refused[name]["text"]


def test_what_fits_or_is_not_for_the_gpu_is_not_refused(found: Any) -> None:
    """The CPU's memory is not the GPU's limit; max_memory leaves to the disk what the script says."""
    for name in ("CPU", "part on the disk"):
        assert found["plain"]["refusals"][name]["type"] is None, found["plain"]["refusals"][name]


def test_unsloth_names_a_truncated_shard(found: Any) -> None:
    """The second of four shards ends in the middle: its name and both sizes, before anything is read."""
    refused = found["unsloth"]["refusals"]["damaged"]
    assert refused["type"] == "CheckpointDamaged" and refused["grown"] < 64
    assert "model-00002-of-00004.safetensors has 1048576 bytes instead of " in refused["text"]
