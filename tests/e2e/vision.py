"""Fine-tunes vision models in a process of its own, as a notebook for Unsloth does, and writes what a comparison needs.

    python -m tests.e2e.vision SPEC.json

SPEC: ``stack`` ("unsloth": FastVisionModel on the simulated Mac; "cpu": transformers, PEFT and bitsandbytes on the CPU
without patches, from the batches and start values that "unsloth" wrote), ``models`` (folder), ``out`` (folder),
``runs`` (objects with ``model``, ``precision``: a key of `PRECISIONS`, and ``checkpointing``).
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
import gc

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from patcher.simulator import running
from tests.e2e import vision_models
from tests.e2e.media import chat, picture

PRECISIONS: dict[str, tuple[torch.dtype, bool]] = {
    "float32": (torch.float32, False),
    "bfloat16": (torch.bfloat16, False),
    "nf4": (torch.float32, True),
}
STEPS = 6
COMMON: dict[str, Any] = {
    "max_steps": STEPS,
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "logging_steps": 1,
    "optim": "adamw_torch",
    "weight_decay": 0.01,
    "lr_scheduler_type": "linear",
    "seed": 3407,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "remove_unused_columns": False,
}


class FirstGradients(TrainerCallback):
    """Keeps the gradients of every adapter tensor at the first optimizer step."""

    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if not self.gradients:
            self.gradients = adapter(model, lambda parameter: parameter.grad)  # LLaVA leaves out the last layer's


class Batches:
    """A collator that keeps what it made, on the CPU."""

    def __init__(self, collator: Any) -> None:
        self.collator = collator
        self.seen: list[dict[str, Any]] = []

    def __call__(self, examples: list[Any]) -> Any:
        batch = self.collator(examples)
        self.seen.append({name: value.clone() for name, value in batch.items()})
        return batch


def adapter(model: Any, part: Any = lambda parameter: parameter) -> dict[str, torch.Tensor]:
    """The trained tensors by name, as fp32 copies on the CPU."""
    return {
        name: part(parameter).detach().float().cpu().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and part(parameter) is not None
    }


def with_unsloth(run: dict[str, Any], out: str) -> dict[str, Any]:
    """The notebook: load, add LoRA, train with SFTTrainer and UnslothVisionDataCollator, generate."""
    from trl import SFTConfig, SFTTrainer
    from unsloth import FastVisionModel
    from unsloth.trainer import UnslothVisionDataCollator

    dtype, quantized = PRECISIONS[run["precision"]]
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
        r=8,
        lora_alpha=16,
        lora_dropout=0,
        bias="none",
        random_state=3407,
        use_rslora=False,
        loftq_config=None,
        use_gradient_checkpointing="unsloth" if run["checkpointing"] else False,
    )
    if dtype == torch.float32:
        model._unsloth_forced_float32 = True  # else it trains fp32 weights under bf16 autocast, as on CUDA
    found = {"start": adapter(model), "layers": layers(model), "modules": model.peft_config["default"].target_modules}
    FastVisionModel.for_training(model)
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        data_collator=UnslothVisionDataCollator(model, tokenizer),
        train_dataset=[{"messages": chat(index)} for index in range(24)],
        args=SFTConfig(
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            output_dir=out,
            dataset_text_field="",
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=256,
            bf16=dtype == torch.bfloat16,
            **COMMON,
        ),
    )
    trainer.data_collator = batches = Batches(trainer.data_collator)
    found |= trained(trainer)
    found["batches"] = batches.seen[: 2 * STEPS]
    found["trainer"] = type(trainer).__name__
    FastVisionModel.for_inference(model)
    asked = tokenizer.apply_chat_template(chat(3, answered=False), add_generation_prompt=True)
    inputs = tokenizer(picture(3)[0], asked, add_special_tokens=False, return_tensors="pt").to("cuda")
    found["question"] = {name: value.cpu() for name, value in inputs.items()}
    return {**found, "tokens": greedy(model, inputs)}


def with_peft(run: dict[str, Any], out: str) -> dict[str, Any]:
    """The same with transformers, PEFT and bitsandbytes: model, start values and batches are given."""
    theirs = torch.load(f"{SPEC['out']}/unsloth-{run['name']}.pt")
    dtype, quantized = PRECISIONS[run["precision"]]
    config = None
    if quantized:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=[name for name, (kind, _, _) in theirs["layers"].items() if kind == "Linear"],
        )
    model = AutoModelForImageTextToText.from_pretrained(
        f"{SPEC['models']}/{run['model']}", dtype=dtype, quantization_config=config
    )
    compute_as_on_a_gpu(model)
    config = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=theirs["modules"])
    model = get_peft_model(model, config)
    places = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if places.keys() != theirs["start"].keys():
        raise SystemExit(f"adapters differ: {sorted(places.keys() ^ theirs['start'].keys())[:6]}")
    for name, parameter in places.items():
        parameter.data = theirs["start"][name].clone()
    found = {"start": adapter(model), "layers": layers(model)}
    arguments = TrainingArguments(
        output_dir=out,
        use_cpu=True,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        bf16=dtype == torch.bfloat16,
        **COMMON,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=theirs["batches"])
    trainer.get_train_dataloader = lambda: theirs["batches"]
    # transformers refuses it to Qwen2.5-VL and Qwen3-VL, and averages the means of unequal batches; Unsloth does not.
    trainer.model_accepts_loss_kwargs = True
    found |= trained(trainer)
    return {**found, "tokens": greedy(model.eval(), theirs["question"])}


def trained(trainer: Any) -> dict[str, Any]:
    """Losses of every step, the gradients of the first, the adapters after the last."""
    keep = FirstGradients()
    trainer.add_callback(keep)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"losses": losses, "gradients": keep.gradients, "adapters": adapter(trainer.model)}


def greedy(model: Any, inputs: Any) -> list[int]:
    tokens = model.generate(**inputs, max_new_tokens=12, do_sample=False, use_cache=True)
    answer: list[int] = tokens[0, inputs["input_ids"].shape[1] :].tolist()
    return answer


def compute_as_on_a_gpu(model: Any) -> None:
    """Keeps bitsandbytes from the products in bf16 that it does on a CPU only."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def layers(model: Any) -> dict[str, tuple[str, str, float]]:
    """Of every linear layer its class, its device, and the bits that a weight takes."""
    return {
        name.removeprefix("base_model.model.").removesuffix(".base_layer"): (
            type(module).__name__,
            module.weight.device.type,
            8 * module.weight.untyped_storage().nbytes() / (module.in_features * module.out_features),
        )
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "lora_" not in name
    }


def main() -> None:
    gc.freeze()  # Unsloth collects garbage a dozen times for each model: a second each time, with all its modules
    for run in SPEC["runs"]:
        if not Path(SPEC["models"], run["model"]).exists():
            vision_models.save(run["model"], Path(SPEC["models"]))
        run["name"] = f"{run['model']}-{run['precision']}{'' if run['checkpointing'] else '-whole'}"
        set_seed(3407)
        found = (with_unsloth if SPEC["stack"] == "unsloth" else with_peft)(run, f"{SPEC['out']}/trainer")
        device = running()
        found["rules"] = {} if device is None else {"fell_back": dict(device.rules.fell_back)}
        torch.save(found, f"{SPEC['out']}/{SPEC['stack']}-{run['name']}.pt")


if __name__ == "__main__":
    main()
