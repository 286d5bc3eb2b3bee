"""Asks, on the simulated Mac, for what cannot run there; prints what came of each as JSON.

    python -m tests.e2e.refusals FOLDER

FOLDER receives a small model.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

from patcher import patch_for_mac

HANDLE = patch_for_mac(simulate="M3 Max 36GB")

import torch
from accelerate import Accelerator, DeepSpeedPlugin, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM


def tried(ask: Callable[[], Any]) -> str:
    """``"works"``, or the type of the error and its message."""
    AcceleratorState._reset_state(True)
    try:
        ask()
    except Exception as error:  # noqa: BLE001 - what is raised is what is looked at
        return f"{type(error).__name__}: {error}"
    return "works"


def by_variable(**variables: str) -> None:
    with mock.patch.dict(os.environ, variables):
        Accelerator()


def flex(folder: str, device: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="flex_attention").to(device)
    with torch.no_grad():
        model(torch.arange(3, 19, device=device)[None])


def main(folder: str) -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    hub = "kernels-community/flash-attn2"
    found = {
        "DeepSpeed": tried(lambda: Accelerator(deepspeed_plugin=DeepSpeedPlugin(zero_stage=2))),
        "DeepSpeed by variable": tried(lambda: by_variable(ACCELERATE_USE_DEEPSPEED="true")),
        "FSDP": tried(lambda: Accelerator(fsdp_plugin=FullyShardedDataParallelPlugin(fsdp_version=2))),
        "FSDP by variable": tried(lambda: by_variable(ACCELERATE_USE_FSDP="true")),
        "Megatron-LM by variable": tried(lambda: by_variable(ACCELERATE_USE_MEGATRON_LM="true")),
        "fp8": tried(lambda: Accelerator(mixed_precision="fp8")),
        "fp8 by variable": tried(lambda: by_variable(ACCELERATE_MIXED_PRECISION="fp8")),
        "bf16": tried(lambda: Accelerator(mixed_precision="bf16")),
        "nccl": tried(lambda: torch.distributed.init_process_group("cpu:gloo,cuda:nccl", world_size=1, rank=0)),
        "gloo": tried(lambda: torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group",
                                                                   world_size=1, rank=0)),
        "flash kernel": tried(lambda: AutoModelForCausalLM.from_pretrained(folder, attn_implementation=hub)),
        "flex": tried(lambda: flex(folder, "cuda")),
    }  # fmt: skip
    print("ANSWER" + json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
