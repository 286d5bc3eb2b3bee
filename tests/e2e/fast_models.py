"""What `vision` and `sound` share: training arguments, what is kept of a training, the reference, all the runs."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import BitsAndBytesConfig, Trainer, TrainerCallback, TrainingArguments, set_seed

from patcher.simulator import running
from tests.e2e.trainers_reference import compute_as_on_a_gpu

PRECISIONS: dict[str, tuple[torch.dtype, bool]] = {
    "float32": (torch.float32, False),
    "bfloat16": (torch.bfloat16, False),
    "nf4": (torch.float32, True),
}
"""The dtype in which is computed, and whether the base has 4 bits."""
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
    "gradient_accumulation_steps": 2,
    "max_grad_norm": 100.0,  # never reached: clipping would hide a gradient that is wrong by a factor
}
LORA: dict[str, Any] = {"r": 8, "lora_alpha": 16, "lora_dropout": 0}


class FirstGradients(TrainerCallback):
    """Keeps the gradients of every trained tensor at the first optimizer step."""

    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if not self.gradients:
            self.gradients = tensors(model, lambda parameter: parameter.grad)  # LLaVA leaves out its last layer


class Batches:
    """A collator that keeps what it made, on the CPU."""

    def __init__(self, collator: Any) -> None:
        self.collator = collator
        self.seen: list[dict[str, Any]] = []

    def __call__(self, examples: list[Any]) -> Any:
        batch = self.collator(examples)
        self.seen.append({name: value.clone() for name, value in batch.items()})
        return batch


def tensors(model: Any, part: Callable[[Any], Any] = lambda parameter: parameter) -> dict[str, torch.Tensor]:
    """The trained tensors by name, or a part of each, as fp32 copies on the CPU."""
    return {
        name: part(parameter).detach().float().cpu().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and part(parameter) is not None
    }


def before(model: Any) -> dict[str, Any]:
    """What the reference needs of a model that is about to be trained."""
    lora = getattr(model, "peft_config", {}).get("default")
    return {"start": tensors(model), "layers": layers(model), "modules": lora and lora.target_modules}


def trained(trainer: Any) -> dict[str, Any]:
    """Losses of every step, the gradients of the first."""
    keep = FirstGradients()
    trainer.add_callback(keep)
    batches = trainer.data_collator = Batches(trainer.data_collator)
    trainer.train()
    return {
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "gradients": keep.gradients,
        "batches": batches.seen[: 2 * STEPS],
        "trainer": type(trainer).__name__,
    }


def greedy(model: Any, inputs: Any, **settings: Any) -> list[int]:
    """The tokens that the model adds to a question."""
    tokens = model.generate(**inputs, max_new_tokens=12, do_sample=False, use_cache=True, **settings)
    first = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
    answer: list[int] = tokens[0, first:].tolist()
    return answer


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


def reference(spec: dict[str, Any], run: dict[str, Any], auto_model: Any, **settings: Any) -> dict[str, Any]:
    """The same with transformers, PEFT and bitsandbytes: start values and batches are those of the Unsloth run."""
    theirs = torch.load(f"{spec['out']}/unsloth-{run['name']}.pt", weights_only=False)
    dtype, quantized = PRECISIONS[run["precision"]]
    if quantized:
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            # Whisper's head is none of them either: it shares its weight with the embedding.
            llm_int8_skip_modules=[name for name, (_, _, bits) in theirs["layers"].items() if bits != 4],
        )
    model = auto_model.from_pretrained(f"{spec['models']}/{run['model']}", dtype=dtype, **settings)
    compute_as_on_a_gpu(model)
    if theirs["modules"]:
        model = get_peft_model(model, LoraConfig(**LORA, target_modules=theirs["modules"]))
    _start_from(model, theirs["start"], torch.float32 if theirs["modules"] else dtype)
    arguments = TrainingArguments(output_dir=f"{spec['out']}/trainer", use_cpu=True, bf16=run["bf16"], **COMMON)
    trainer = Reference(model=model, args=arguments, train_dataset=theirs["batches"], data_collator=lambda rows: rows)
    found = {**before(model), **trained(trainer), "tokens": None}
    if theirs["question"] is not None:
        inputs = {name: v.to(dtype) if v.is_floating_point() else v for name, v in theirs["question"].items()}
        found["tokens"] = greedy(model.eval(), inputs, **theirs["generation"])
    return found


class Reference(Trainer):
    """Takes the batches as they are, and counts every predicted token the same, in however many batches of a step.

    Unsloth does so with every model that predicts tokens. transformers alone averages the means of unequal batches for
    Whisper, Qwen2-Audio, Qwen2.5-VL and Qwen3-VL.
    """

    def get_train_dataloader(self) -> Any:
        self.model_accepts_loss_kwargs = True  # what compute_loss gives is not divided by the number of batches
        self.seen = 0
        return self.train_dataset

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        """Cross entropy, summed over the tokens of this batch and divided by those of the step's two batches."""
        output, labels = model(**inputs), inputs["labels"]
        if labels.dim() == 1:  # a class for each row
            return output.loss / 2
        logits = output.logits.float()
        step = self.train_dataset[self.seen // 2 * 2 : self.seen // 2 * 2 + 2]
        self.seen += 1
        first = 0 if model.config.is_encoder_decoder else 1
        count = sum(int((batch["labels"][..., first:] != -100).sum()) for batch in step)
        if first:
            logits, labels = logits[:, :-1], labels[:, 1:]
        total = torch.nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="sum")
        return total / count


def _start_from(model: Any, start: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    """Trained parameters get the values, in fp32 if they are adapters; every one must have its place."""
    places = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if places.keys() != start.keys():
        raise SystemExit(f"trained parameters differ: {sorted(places.keys() ^ start.keys())[:6]}")
    for name, parameter in places.items():
        parameter.data = start[name].to(dtype, copy=True)


def run_all(spec: dict[str, Any], save: Callable[[str, Path], Any], train: Callable[[dict[str, Any]], Any]) -> None:
    """Every run of the spec; models are saved where they are missing."""
    gc.freeze()  # Unsloth collects garbage a dozen times for each model: a second each time, with all its modules
    for run in spec["runs"]:
        if not Path(spec["models"], run["model"]).exists():
            save(run["model"], Path(spec["models"]))
        run["bf16"] = run["precision"] == "bfloat16"
        set_seed(3407)
        found = train(run)
        device = running()
        found["rules"] = {} if device is None else {"fell_back": dict(device.rules.fell_back)}
        torch.save(found, f"{spec['out']}/{spec['stack']}-{run['name']}.pt")
