"""Trains without interruption, and killed and resumed in another process. Run by the tests:

python -m tests.e2e.resume (trl|unsloth) MODEL OUT.json KIND...

OUT: for each kind what the two runs had at their ends, and at each step: the loss, the rows, the gradients' norm. With
TRL the runs are fresh copies of this process. Importing Unsloth starts threads that no copy would have, so this is run
twice there: the second time goes on from a checkpoint of the first.
"""

import gc
import sys

from patcher import patch_for_mac

patch_for_mac(simulate="M3 Max 36GB")
STACK = sys.argv[1]
if STACK == "unsloth":
    import unsloth  # noqa: F401

import hashlib
import json
import os
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from tests.e2e import forks
from tests.e2e.text import SENTENCES, rows

MODEL = sys.argv[2]
STEPS, SAVE_STEPS = 8, 3
KILLED = {"trainer": 6, "by length": 6}
"""Before which step; else the fifth. An epoch has four steps: both resume within one, the first or the second."""
MODULES = ["q_proj", "v_proj", "down_proj"]
COMMON: dict[str, Any] = {
    "per_device_train_batch_size": 2,
    "max_steps": STEPS,
    "save_steps": SAVE_STEPS,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 2,
    "logging_steps": 1,
    "optim": "adamw_torch",
    "seed": 11,
    "report_to": "none",
    "disable_tqdm": True,
    "gradient_checkpointing": True,
    "bf16": False,
}


class Watch(TrainerCallback):
    """Ends the process by SIGKILL before a step."""

    def __init__(self, killed_at: int | None) -> None:
        self.killed_at = killed_at

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)


def with_dropout(folder: str) -> Any:
    """The model with dropout on its attention, 30%."""
    return AutoModelForCausalLM.from_pretrained(folder, attention_dropout=0.3)


def plain(out: str, **options: Any) -> Trainer:
    """transformers' own Trainer, all weights; three epochs, each in another order."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    ids = tokenizer(rows(8, 3), truncation=True, max_length=48)["input_ids"]
    return Trainer(
        model=with_dropout(MODEL),
        args=TrainingArguments(out, **{**COMMON, **options}),
        train_dataset=Dataset.from_dict({"input_ids": ids}),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )


def model_for(kind: str) -> tuple[Any, Any, dict[str, Any]]:
    """Model, tokenizer and the argument that makes the adapter, with 10% dropout, as a script of the stack has them."""
    lora = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "target_modules": MODULES}
    if STACK == "trl":
        adapter = {"peft_config": LoraConfig(**lora)}
        return with_dropout(MODEL), AutoTokenizer.from_pretrained(MODEL), adapter
    from unsloth import FastLanguageModel

    model, tokenizer = FastLanguageModel.from_pretrained(
        MODEL, max_seq_length=64, dtype=torch.float32, load_in_4bit="4bit" in kind
    )
    lora = {**lora, "use_gradient_checkpointing": "unsloth", "random_state": 5, "bias": "none"}
    return FastLanguageModel.get_peft_model(model, **lora), tokenizer, {}


def sft(out: str, kind: str = "sft") -> Trainer:
    """TRL's SFTTrainer with an adapter, two batches for each step; or Unsloth's version of it."""
    model, tokenizer, adapter = model_for(kind)
    arguments = SFTConfig(output_dir=out, max_length=48, gradient_accumulation_steps=2, **COMMON)
    data = Dataset.from_dict({"text": rows(10, 3)})
    return SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer, **adapter)


def dpo(out: str) -> Trainer:
    """TRL's DPOTrainer with an adapter; or Unsloth's version of it."""
    model, tokenizer, adapter = model_for("dpo")
    table = {
        "prompt": [SENTENCES[7 * i][:12] for i in range(8)],
        "chosen": [SENTENCES[7 * i][12:] for i in range(8)],
        "rejected": [SENTENCES[7 * i + 5][20:] for i in range(8)],
    }
    arguments = DPOConfig(output_dir=out, beta=0.5, max_length=48, **COMMON)
    data = Dataset.from_dict(table)
    return DPOTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer, **adapter)


KINDS = {
    "trainer": plain,
    "fp16": partial(plain, fp16=True),
    "by length": partial(plain, train_sampling_strategy="group_by_length"),
    "sft": sft,
    "4bit": partial(sft, kind="4bit"),
    "dpo": dpo,
}


def hashed(tensors: list[torch.Tensor]) -> str:
    """A digest of the tensors' bytes."""
    content = (tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in tensors if tensor.numel())
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in content)).hexdigest()


def run(kind: str, out: str, report: Any, *, killed_at: int | None = None, resume: bool = False) -> None:
    """Trains; reports what each forward was given and, at the end, all that makes up the state."""
    set_seed(3)
    trainer = KINDS[kind](out)
    if resume:
        torch.mps.manual_seed(999)  # as far from the interrupted run as a new process can be
    trainer.add_callback(Watch(killed_at))
    seen: dict[str, list[str]] = {}

    def see(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if module.training:
            seen.setdefault(str(trainer.state.global_step + 1), []).append(hashed([kwargs["input_ids"]])[:8])

    trainer.model.register_forward_pre_hook(see, with_kwargs=True)
    trainer.train(resume_from_checkpoint=resume)
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    optimizer = trainer.optimizer.state_dict()["state"].values()
    scaler = trainer.accelerator.scaler
    report(
        {
            "rows": seen,
            "steps": [(entry["step"], entry["loss"], entry["grad_norm"], entry["learning_rate"]) for entry in history],
            "weights": hashed([p for p in trainer.model.parameters() if p.requires_grad]),
            "optimizer": hashed([value for state in optimizer for value in state.values()]),
            "scheduler": repr(trainer.lr_scheduler.state_dict()),
            "scaler": None if scaler is None else repr(scaler.state_dict()),
            "generators": hashed([torch.mps.get_rng_state()]),
        }
    )


def with_copies(out: Path, kinds: list[str]) -> dict[str, Any]:
    """Each kind in three copies of this process: one that ends, one that is killed, one that resumes it."""
    results: dict[str, Any] = {}
    for kind in kinds:
        whole, broken = (str(out.with_suffix(f".{kind}.{name}")) for name in ("whole", "broken"))
        results[kind] = {"whole": forks.result(partial(run, kind, whole))}
        killed = forks.start(partial(run, kind, broken, killed_at=KILLED.get(kind, 4)))
        assert killed.wait() is None, "it was not killed"
        results[kind]["resumed"] = forks.result(partial(run, kind, broken, resume=True))
        if kind == "trainer":
            results[kind]["without"] = forks.result(partial(without_generator, whole))
    return results


def in_two_processes(out: Path, kinds: list[str]) -> dict[str, Any]:
    """The first process trains to the end; the second one resumes from a copy of its first checkpoint."""
    results: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    for kind in kinds:
        whole, broken = (out.with_suffix(f".{kind}.{name}") for name in ("whole", "broken"))
        resume = kind in results
        if resume:
            shutil.copytree(whole / f"checkpoint-{SAVE_STEPS}", broken / f"checkpoint-{SAVE_STEPS}")
        reports: list[Any] = []
        run(kind, str(broken if resume else whole), reports.append, resume=resume)
        results.setdefault(kind, {})["resumed" if resume else "whole"] = json.loads(json.dumps(reports[-1]))
    return results


def without_generator(out: str, report: Any) -> None:
    """Resumes from the checkpoint of step 3 as transformers alone would: it has no state of mps' generator."""
    from transformers.trainer_pt_utils import safe_globals

    path = Path(out) / f"checkpoint-{SAVE_STEPS}" / "rng_state.pth"
    with safe_globals():
        states = torch.load(path, weights_only=True)
    del states["mps"]
    torch.save(states, path)
    for step in range(SAVE_STEPS + 1, STEPS + 1):
        if (later := Path(out) / f"checkpoint-{step}").exists():
            later.rename(later.with_name(f"later-{step}"))
    (path.parent / "checkpoint_manifest.json").unlink()
    run("trainer", out, report, resume=True)


if __name__ == "__main__":
    gc.freeze()  # Unsloth collects garbage a dozen times for each model, with all modules
    OUT = Path(sys.argv[3])
    RESULTS = (with_copies if STACK == "trl" else in_two_processes)(OUT, sys.argv[4:])
    OUT.write_text(json.dumps(RESULTS))
