"""Trains LoRAs on 4-bit and 8-bit bases in a process of its own. Run by the tests, with a spec as for `train`:

    python -m tests.e2e.train_4bit SPEC.json

Further fields of a run: ``quantization`` (a name of `QUANTIZATIONS`, or "stored": as the checkpoint is), ``compiled``
(whether torch.compile has its effect), ``base`` (where the quantized base is saved, or None), ``merged`` (where the
merged model is saved, or None).
"""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

from tests.e2e import train as plain  # patches first, as its spec says

# isort: split
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, set_seed

from patcher.simulator import running
from tests.e2e.trainers_reference import compute_as_on_a_gpu

QUANTIZATIONS: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False},
    "int8": {"load_in_8bit": True},
}


def configuration(spec: dict[str, Any]) -> BitsAndBytesConfig | None:
    """The configuration with arithmetic in the run's dtype; None where the checkpoint brings its own."""
    if spec["quantization"] == "stored":
        return None
    return BitsAndBytesConfig(**QUANTIZATIONS[spec["quantization"]], bnb_4bit_compute_dtype=dtype_of(spec))


def dtype_of(spec: dict[str, Any]) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, spec["dtype"])
    return dtype


def with_unsloth(spec: dict[str, Any]) -> tuple[Any, Any]:
    """Model and tokenizer as an Unsloth script makes them; FP4 has no flag, and is asked for by configuration."""
    from unsloth import FastLanguageModel

    flags: dict[str, Any] = {"load_in_4bit": spec["quantization"] in ("nf4", "stored")}
    flags["load_in_8bit"] = spec["quantization"] == "int8"
    if spec["quantization"] == "fp4":
        flags = {"quantization_config": configuration(spec)}
    model, tokenizer = FastLanguageModel.from_pretrained(
        spec["model"], max_seq_length=spec["max_length"], dtype=dtype_of(spec), **flags
    )
    spec["stored"] = storage(model)
    device = running()
    spec["allocated"] = None if device is None else device.memory().current
    model = FastLanguageModel.get_peft_model(
        model,
        r=8,
        lora_alpha=16,
        lora_dropout=0,
        bias="none",
        target_modules=plain.MODULES,
        use_gradient_checkpointing="unsloth",
        random_state=3407,
    )
    model._unsloth_forced_float32 = spec["dtype"] == "float32"
    return model, tokenizer


def with_peft(spec: dict[str, Any]) -> tuple[Any, Any]:
    """The same with transformers, bitsandbytes and PEFT; where the model goes is left to transformers."""
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    model = AutoModelForCausalLM.from_pretrained(
        spec["model"], dtype=dtype_of(spec), quantization_config=configuration(spec)
    )
    if spec.get("base"):
        model.save_pretrained(spec["base"])
        tokenizer.save_pretrained(spec["base"])
    spec["stored"] = storage(model)
    if spec["stack"] == "cpu":
        as_on_a_gpu(model)
    if spec["dtype"] == "float32":  # in 16 bit it would widen what Unsloth leaves narrow
        model = prepare_model_for_kbit_training(model)
    config = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=plain.MODULES, task_type="CAUSAL_LM")
    model = get_peft_model(model, config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    return model, tokenizer


def as_on_a_gpu(model: Any) -> None:
    """Keeps bitsandbytes on the CPU from what it does nowhere else: bf16 products, 8 bit without rounding inputs."""
    from bitsandbytes.autograd import _functions

    _functions.MatMul8bitFp = _functions.MatMul8bitLt
    compute_as_on_a_gpu(model)


def storage(model: Any) -> dict[str, list[Any]]:
    """Of every linear layer: its class, the device, bytes and digest of its weight, and its number of values."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            weight = module.weight
            codes = weight.data.cpu().contiguous().view(torch.uint8)
            found[name] = [
                type(module).__name__,
                weight.device.type,
                weight.untyped_storage().nbytes(),
                module.in_features * module.out_features,
                int((codes.flatten().long() * torch.arange(1, codes.numel() + 1)).sum()),
            ]
    return found


def run(spec: dict[str, Any]) -> None:
    out = Path(spec["out"])
    out.mkdir(parents=True, exist_ok=True)
    set_seed(3407)
    model, tokenizer = (with_unsloth if spec["stack"] == "unsloth" else with_peft)(spec)
    tokenizer.padding_side = "right"
    if spec["adapter"] is None:
        save_file(plain.adapter(model), out / "initial.safetensors")
    else:
        plain.load_adapter(model, load_file(spec["adapter"]))
    paths = plain.fused_paths(model, tokenizer) if spec["stack"] == "unsloth" else []
    losses, gradients = plain.train(spec, model, tokenizer)
    save_file(gradients, out / "gradients.safetensors")
    save_file(plain.adapter(model), out / "trained.safetensors")
    result = {"losses": losses, "paths": paths, "tokens": plain.greedy(spec, model, tokenizer)}
    result |= {"stored": spec["stored"], "allocated": spec.get("allocated")}
    if spec.get("merged"):
        model.save_pretrained_merged(spec["merged"], tokenizer, save_method="merged_16bit")
    (out / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    gc.freeze()  # Unsloth collects garbage a dozen times for each model, with all modules
    for one in plain.SPEC["runs"]:
        spec = {**plain.SPEC, **one}
        with torch.compiler.set_stance("default" if spec["compiled"] else "force_eager"):
            run(spec)
