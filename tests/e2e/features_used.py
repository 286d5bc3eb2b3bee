"""One function for each feature of the Trainer: uses it as a script does, and gives what it did as plain numbers."""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainerCallback

from tests.e2e.features import (
    MODULES,
    STEPS,
    UNSLOTH,
    TrainerOfStack,
    adapted,
    arguments,
    base_model,
    dataset,
    history,
    in_fp32,
    lora,
    norms,
    started,
    trainer,
)
from tests.e2e.text import rows

Result = dict[str, Any]


def trained(name: str, model: Any, tokenizer: Any, **more: Any) -> Result:
    """The losses of plain training and the tensors afterwards."""
    used = trainer(model, tokenizer, arguments(name), **more)
    used.train()
    return {"losses": history(used), "norms": norms(model)}


def data_collator(name: str) -> Result:
    """Pads by itself, and has no labels for every third token."""
    model, tokenizer = adapted()
    seen: list[list[int]] = []

    def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        texts = [torch.tensor(example["input_ids"]) for example in examples]
        seen.append([len(text) for text in texts])
        ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=tokenizer.pad_token_id)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
        labels = ids.masked_fill((mask == 0) | (torch.arange(ids.shape[1]) % 3 == 0), -100)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    result = trained(name, model, tokenizer, data_collator=collate)
    return {**result, "lengths": seen[:STEPS]}


class Recorder(TrainerCallback):
    """Writes down every event, asks for an evaluation after step 2 and for the end after step 4."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_") and name not in ("on_step_end", "on_prediction_step"):
            return lambda args, state, control, **_: self.events.append(f"{name} {state.global_step}")
        return super().__getattribute__(name)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        self.events.append(f"on_step_end {state.global_step}")
        control.should_evaluate = state.global_step == 2
        control.should_training_stop = state.global_step == 4
        return control


def callbacks(name: str) -> Result:
    """The order of all events, and what a callback that steers the training brings about."""
    model, tokenizer = adapted()
    recorder = Recorder()
    used = trainer(
        model, tokenizer, arguments(name), callbacks=[recorder], eval_dataset=dataset(tokenizer).select(range(4))
    )
    used.train()
    return {"events": recorder.events, "losses": history(used), "evaluations": history(used, "eval_loss")}


def _best(logits: Any, labels: Any) -> torch.Tensor:
    return (logits[0] if isinstance(logits, tuple) else logits).argmax(-1)


def _accuracy(prediction: Any) -> dict[str, float]:
    best, labels = torch.tensor(prediction.predictions)[:, :-1], torch.tensor(prediction.label_ids)[:, 1:]
    counted = labels != -100
    return {"accuracy": ((best == labels) & counted).sum().item() / counted.sum().item()}


def compute_metrics(name: str) -> Result:
    """Evaluation during training, evaluation afterwards and prediction, with accuracy and with whole logits."""
    # Unsloth's own request: else TRL's SFTTrainer gets no logits from it, on any device.
    os.environ["UNSLOTH_RETURN_LOGITS"] = "1"
    model, tokenizer = adapted()
    few = dataset(tokenizer).select(range(6))
    used = trainer(
        model,
        tokenizer,
        arguments(name, eval_strategy="steps", eval_steps=2),
        eval_dataset=few,
        compute_metrics=_accuracy,
        preprocess_logits_for_metrics=_best,
    )
    used.train()
    evaluation = used.evaluate()
    prediction = used.predict(used.eval_dataset)
    used.preprocess_logits_for_metrics = None
    used.compute_metrics = lambda all_of_it: {"mean": float(abs(all_of_it.predictions).mean())}
    logits = used.evaluate()
    del os.environ["UNSLOTH_RETURN_LOGITS"]
    return {
        "losses": history(used),
        "accuracies": history(used, "eval_accuracy"),
        "evaluation": [evaluation["eval_loss"], evaluation["eval_accuracy"]],
        "predicted": prediction.predictions.tolist(),
        "labels": prediction.label_ids.tolist(),
        "metrics": [prediction.metrics["test_loss"], prediction.metrics["test_accuracy"]],
        "logits": logits["eval_mean"],
    }


class Focal(TrainerOfStack):
    """A trainer with a loss of its own: focal loss with gamma 2 (Lin et al. 2017), from the model's logits."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels")
        output = model(**inputs)
        counted = labels[:, 1:] != -100
        chances = output.logits[:, :-1].float().log_softmax(-1)[counted]
        right = chances.gather(-1, labels[:, 1:][counted][:, None])[:, 0]
        loss = -((1 - right.exp()) ** 2 * right).mean()
        return (loss, output) if return_outputs else loss


def compute_loss(name: str) -> Result:
    """A subclass with its own loss."""
    model, tokenizer = adapted()
    return trained(name, model, tokenizer, kind=Focal)


def _smoothed(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    logits = outputs["logits"][:, :-1].float().flatten(0, 1)
    total = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), label_smoothing=0.1, reduction="sum")
    return total / num_items_in_batch


def compute_loss_func(name: str) -> Result:
    """A loss as a function, with two accumulated batches at a time."""
    model, tokenizer = adapted()
    used = trainer(model, tokenizer, arguments(name, gradient_accumulation_steps=2), compute_loss_func=_smoothed)
    used.train()
    return {"losses": history(used), "norms": norms(model)}


def optimizers(name: str) -> Result:
    """SGD with momentum in two groups, and a schedule with a step in it."""
    model, tokenizer = adapted()
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [{"params": [p for n, p in named if f"lora_{side}" in n], "lr": lr} for side, lr in (("A", 0.1), ("B", 1))]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.25 if step >= 3 else 0.5 * (step + 1) / 3)
    used = trainer(model, tokenizer, arguments(name), optimizers=(optimizer, schedule))
    used.train()
    return {"losses": history(used), "rates": history(used, "learning_rate"), "norms": norms(model)}


def schedules(name: str) -> Result:
    """Every scheduler that a training argument names, and other optimizers of torch."""
    result: Result = {}
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("cosine_with_restarts", "adamw_torch", {"lr_scheduler_kwargs": {"num_cycles": 2}}),
        ("polynomial", "adafactor", {"warmup_steps": 2}),
        ("warmup_stable_decay", "rmsprop", {"warmup_steps": 1, "lr_scheduler_kwargs": {"num_decay_steps": 2}}),
    ]
    for schedule, optimizer, more in kinds:
        model, tokenizer = adapted()
        used = trainer(model, tokenizer, arguments(name, lr_scheduler_type=schedule, optim=optimizer, **more))
        used.train()
        result[schedule] = [history(used), history(used, "learning_rate")]
    return result


def early_stopping(name: str) -> Result:
    """Two steps down and then uphill: it stops after two that are worse, and loads the best checkpoint."""
    model, tokenizer = adapted()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step < 2 else -1.0)
    used = trainer(
        model,
        tokenizer,
        arguments(
            name,
            max_steps=8,
            eval_strategy="steps",
            eval_steps=1,
            save_strategy="steps",
            save_steps=1,
            load_best_model_at_end=True,
            metric_for_best_model="eval_loss",
            greater_is_better=False,
        ),
        eval_dataset=dataset(tokenizer).select(range(4)),
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
        optimizers=(optimizer, schedule),
    )
    used.train()
    return {
        "evaluations": history(used, "eval_loss"),
        "steps": used.state.global_step,
        "best": str(used.state.best_model_checkpoint).rpartition("/")[2],
        "again": used.evaluate()["eval_loss"],
    }


def streaming(name: str) -> Result:
    """A data set that is read as it comes, without a length."""
    from datasets import IterableDataset

    model, tokenizer = adapted()

    def read() -> Any:
        for row in rows(64, 3):
            yield {"input_ids": tokenizer(row)["input_ids"]}

    streamed = IterableDataset.from_generator(read).shuffle(seed=7, buffer_size=8)
    return trained(name, model, tokenizer, train_dataset=streamed)


def accumulation(name: str) -> Result:
    """Four batches with different numbers of tokens for each step: the mean is that of all tokens."""
    model, tokenizer = adapted()
    used = trainer(
        model,
        tokenizer,
        arguments(name, gradient_accumulation_steps=4, per_device_train_batch_size=1, max_grad_norm=0.5),
    )
    used.train()
    return {"losses": history(used), "gradients": history(used, "grad_norm"), "norms": norms(model)}


def neftune(name: str) -> Result:
    """Noise on the embeddings, from the same generator on every device; none of it in evaluation.

    Rows are padded: the noise shrinks with the length of a row, and a batch without padding is one row.
    """
    generator = torch.Generator().manual_seed(5)
    drawn: list[list[int]] = []
    own = torch.Tensor.uniform_

    def uniform_(tensor: torch.Tensor, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        drawn.append(list(tensor.shape))
        return tensor.copy_(own(torch.empty(tensor.shape), low, high, generator=generator))

    model, tokenizer = adapted()
    padded = {"padding_free": False} if UNSLOTH else {}
    used = trainer(
        model,
        tokenizer,
        arguments(name, neftune_noise_alpha=15.0, **padded),
        eval_dataset=dataset(tokenizer).select(range(4)),
    )
    torch.Tensor.uniform_ = uniform_
    try:
        used.train()
        during = len(drawn)
        evaluation = used.evaluate()["eval_loss"]
    finally:
        torch.Tensor.uniform_ = own
    return {"losses": history(used), "drawn": drawn, "none": len(drawn) - during, "evaluation": evaluation}


def dora(name: str) -> Result:
    """Weight-decomposed adapters."""
    return trained(name, *adapted(use_dora=True))


def rslora(name: str) -> Result:
    """Adapters scaled by the root of the rank."""
    return trained(name, *adapted(use_rslora=True))


def pissa(name: str) -> Result:
    """Adapters that begin as the principal singular values; the base keeps the rest."""
    # Else Unsloth takes a randomized decomposition, and so other start values than PEFT.
    os.environ["UNSLOTH_FAST_LORA_INIT"] = "0"
    model, tokenizer = base_model()
    model = lora(model, init_lora_weights="pissa")
    return trained(name, model, tokenizer)


def modules_to_save(name: str) -> Result:
    """The embeddings and the head are trained beside the adapter."""
    return trained(name, *adapted(modules_to_save=["embed_tokens", "lm_head"]))


def several_adapters(name: str) -> Result:
    """A second adapter is trained; then the first one, the second one and neither evaluate."""
    from peft import LoraConfig

    model, tokenizer = adapted()
    model.add_adapter("second", LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.0))
    model.set_adapter("second")
    result = trained(name, started(model), tokenizer)
    few = dataset(tokenizer).select(range(4))
    used = trainer(model, tokenizer, arguments(name), eval_dataset=few)
    result["second"] = used.evaluate()["eval_loss"]
    model.set_adapter("default")
    result["first"] = used.evaluate()["eval_loss"]
    with model.disable_adapter():
        result["neither"] = used.evaluate()["eval_loss"]
    return result


def full_fine_tuning(name: str) -> Result:
    """Every parameter is trained."""
    model, tokenizer = base_model(**({"full_finetuning": True} if UNSLOTH else {}))
    # Else Unsloth fine-tunes weights in fp32 under bf16 autocast; "bfloat16" means without autocast.
    os.environ["UNSLOTH_MIXED_PRECISION"] = "bfloat16"
    return trained(name, in_fp32(model), tokenizer)


def continued_pretraining(name: str) -> Result:
    """Adapters, embeddings and head on plain text; embeddings and head have a smaller rate of their own."""
    if UNSLOTH:
        from unsloth import UnslothTrainer, UnslothTrainingArguments

        model, tokenizer = adapted(target_modules=[*MODULES, "embed_tokens", "lm_head"])
        args = arguments(name, kind=UnslothTrainingArguments, embedding_learning_rate=1e-4)
        used = trainer(model, tokenizer, args, kind=UnslothTrainer)
    else:
        model, tokenizer = adapted(modules_to_save=["embed_tokens", "lm_head"])
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        slow = [p for n, p in named if "modules_to_save" in n]
        fast = [p for n, p in named if "modules_to_save" not in n]
        groups = [{"params": fast, "lr": 1e-3}, {"params": slow, "lr": 1e-4}]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        used = trainer(model, tokenizer, arguments(name), optimizers=(optimizer, schedule))
    used.train()
    return {"losses": history(used), "norms": norms(model)}
