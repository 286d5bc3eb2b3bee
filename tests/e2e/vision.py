"""Fine-tunes vision models in a process of its own, as a notebook for Unsloth does, and writes what a comparison needs.

    python -m tests.e2e.vision SPEC.json

SPEC: ``stack`` ("unsloth": FastVisionModel on the simulated Mac; "cpu": transformers, PEFT and bitsandbytes on the CPU
without patches, from the batches and start values that "unsloth" wrote), ``models`` (folder), ``out`` (folder),
``runs`` (objects with ``name``, ``model``, ``precision`` and ``checkpointing``).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SPEC: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
if SPEC["stack"] == "unsloth":
    from patcher import patch_for_mac

    patch_for_mac(simulate="M3 Max 36GB")

# isort: split
from tests.e2e import torchvision_python

torchvision_python.load()
if SPEC["stack"] == "unsloth":
    import unsloth  # noqa: F401

# isort: split
import torch
from transformers import AutoModelForImageTextToText

from tests.e2e import fast_models, vision_models
from tests.e2e.media import chat, picture


def with_unsloth(run: dict[str, Any]) -> dict[str, Any]:
    """The notebook: load, add LoRA, train with SFTTrainer and UnslothVisionDataCollator, generate."""
    from trl import SFTConfig, SFTTrainer
    from unsloth import FastVisionModel
    from unsloth.trainer import UnslothVisionDataCollator

    dtype, quantized = fast_models.PRECISIONS[run["precision"]]
    model, tokenizer = FastVisionModel.from_pretrained(
        f"{SPEC['models']}/{run['model']}",
        dtype=dtype,
        load_in_4bit=quantized,
        use_gradient_checkpointing="unsloth" if run["checkpointing"] else False,
    )
    model = FastVisionModel.get_peft_model(
        model,
        finetune_vision_layers=True,
        finetune_language_layers=True,
        finetune_attention_modules=True,
        finetune_mlp_modules=True,
        **fast_models.LORA,
        bias="none",
        random_state=3407,
        use_rslora=False,
        loftq_config=None,
        use_gradient_checkpointing="unsloth" if run["checkpointing"] else False,
    )
    # Else it trains fp32 weights under bf16 autocast, as on CUDA.
    model._unsloth_forced_float32 = dtype == torch.float32
    found = fast_models.before(model)
    FastVisionModel.for_training(model)
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        data_collator=UnslothVisionDataCollator(model, tokenizer),
        train_dataset=[{"messages": chat(index)} for index in range(24)],
        args=SFTConfig(
            per_device_train_batch_size=2,
            output_dir=f"{SPEC['out']}/trainer",
            dataset_text_field="",
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=256,
            bf16=run["bf16"],
            **fast_models.COMMON,
        ),
    )
    found |= {**fast_models.trained(trainer), "generation": {}}
    FastVisionModel.for_inference(model)
    asked = tokenizer.apply_chat_template(chat(3, answered=False), add_generation_prompt=True)
    inputs = tokenizer(picture(3)[0], asked, add_special_tokens=False, return_tensors="pt").to("cuda")
    found["question"] = {name: value.cpu() for name, value in inputs.items()}
    return {**found, "tokens": fast_models.greedy(model, inputs)}


def with_peft(run: dict[str, Any]) -> dict[str, Any]:
    return fast_models.reference(SPEC, run, AutoModelForImageTextToText)


if __name__ == "__main__":
    fast_models.run_all(SPEC, vision_models.save, with_unsloth if SPEC["stack"] == "unsloth" else with_peft)
