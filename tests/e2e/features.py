"""Uses features of the Trainer in one process and writes what a comparison needs. Run by the tests:

    python -m tests.e2e.features SPEC.json

A spec is an object with the fields ``stack`` ("unsloth": on the simulated Mac; "mps": transformers and PEFT alone on
it; "cpu": the same on the CPU without patches), ``model`` (folder), ``out`` (folder) and ``features`` (names of
functions of `features_used`).
"""

from __future__ import annotations

import gc
import json
import sys
import zlib
from pathlib import Path
from typing import Any

SPEC = json.loads(Path(sys.argv[1]).read_text())

if SPEC["stack"] != "cpu":
    from patcher import patch_for_mac

    patch_for_mac(simulate="M3 Max 36GB")
if SPEC["stack"] == "unsloth":
    import unsloth  # noqa: F401

# isort: split
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
    set_seed,
)

from tests.e2e.text import rows

UNSLOTH = SPEC["stack"] == "unsloth"
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
STEPS, BATCH = 5, 2
if UNSLOTH:
    from trl import SFTConfig as Arguments
    from trl import SFTTrainer as TrainerOfStack
else:
    Arguments, TrainerOfStack = TrainingArguments, Trainer


def base_model(**more: Any) -> tuple[Any, Any]:
    """The model without an adapter, and its tokenizer."""
    if UNSLOTH:
        from unsloth import FastLanguageModel

        model, tokenizer = FastLanguageModel.from_pretrained(
            SPEC["model"], max_seq_length=256, dtype=torch.float32, load_in_4bit=False, **more
        )
    else:
        model = AutoModelForCausalLM.from_pretrained(SPEC["model"], dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(SPEC["model"])
    tokenizer.padding_side = "right"
    return model, tokenizer


def lora(model: Any, **more: Any) -> Any:
    """The model with an adapter as a script of this stack makes it; ``more`` goes to PEFT's configuration."""
    options: dict[str, Any] = {"r": 8, "lora_alpha": 16, "lora_dropout": 0, "target_modules": MODULES, **more}
    if UNSLOTH:
        from unsloth import FastLanguageModel

        model = FastLanguageModel.get_peft_model(
            model, bias="none", use_gradient_checkpointing=False, random_state=3407, **options
        )
    else:
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
    return in_fp32(model)


def in_fp32(model: Any) -> Any:
    """Unsloth trains a model of fp32 weights under bf16 autocast, but not one with this mark."""
    if UNSLOTH:
        model._unsloth_forced_float32 = True
    return model


def started(model: Any) -> Any:
    """Gives every matrix of every adapter start values that depend on its name only."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" in name or "lora_B" in name or "lora_embedding" in name:
                generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


def adapted(**more: Any) -> tuple[Any, Any]:
    """A model with an adapter that has its start values."""
    model, tokenizer = base_model()
    return started(lora(model, **more)), tokenizer


def dataset(tokenizer: Any, count: int = 16, sentences: int = 3) -> Dataset:
    return Dataset.from_dict({"input_ids": tokenizer(rows(count, sentences))["input_ids"]})


def arguments(name: str, kind: Any = None, **more: Any) -> Any:
    """The same arguments for each stack."""
    values: dict[str, Any] = {
        "output_dir": f"{SPEC['out']}/{name}.trainer",
        "per_device_train_batch_size": BATCH,
        "per_device_eval_batch_size": BATCH,
        "gradient_accumulation_steps": 1,
        "max_steps": STEPS,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "logging_steps": 1,
        "optim": "adamw_torch",
        "bf16": False,
        "fp16": False,
        "seed": 3407,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": SPEC["stack"] == "cpu",
        "disable_tqdm": True,
        **more,
    }
    if UNSLOTH:
        values = {"max_length": 128, "packing": False, **values}
    return (kind or Arguments)(**values)


def trainer(model: Any, tokenizer: Any, args: Any, kind: Any = None, **more: Any) -> Any:
    """This stack's trainer for language modelling."""
    more.setdefault("train_dataset", dataset(tokenizer))
    if not UNSLOTH:
        more.setdefault("data_collator", DataCollatorForLanguageModeling(tokenizer, mlm=False))
    return (kind or TrainerOfStack)(model=model, args=args, processing_class=tokenizer, **more)


def history(used: Any, key: str = "loss") -> list[float]:
    return [entry[key] for entry in used.state.log_history if key in entry]


def norms(model: Any) -> dict[str, float]:
    """The norm of every trained tensor, by name."""
    return {
        name: parameter.detach().cpu().double().norm().item()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def main() -> None:
    from tests.e2e import features_used

    # Unsloth collects garbage 14 times for each model; without what the imports made, that is 7 times as fast.
    gc.freeze()
    for name in SPEC["features"]:
        set_seed(3407)
        result = getattr(features_used, name)(name)
        Path(SPEC["out"], f"{name}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
