"""Trains with TRL alone, without Unsloth, on the simulated Mac; writes the losses and the tokens that it trained on.

python -m tests.e2e.train_trl (sft|dpo) MODEL OUT.json
"""

from patcher import patch_for_mac

patch_for_mac(simulate="M3 Max 36GB")

import json
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig, PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from tests.e2e.text import SENTENCES, rows

STEPS = 8
COMMON: dict[str, Any] = {
    "per_device_train_batch_size": 2,
    "max_steps": STEPS,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "max_grad_norm": 0.0,
    "weight_decay": 0.0,
    "logging_steps": 1,
    "optim": "adamw_torch",
    "train_sampling_strategy": "sequential",
    "bf16": False,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
}
LORA = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["q_proj", "v_proj", "down_proj"])


def sft(model: Any, tokenizer: Any, out: str) -> SFTTrainer:
    """Language modelling on the test rows."""
    return SFTTrainer(
        model=model,
        args=SFTConfig(output_dir=out, **COMMON),
        train_dataset=Dataset.from_dict({"text": rows(2 * STEPS, 3)}),
        processing_class=tokenizer,
        peft_config=LORA,
    )


def dpo(model: Any, tokenizer: Any, out: str) -> DPOTrainer:
    """Sentences continued rightly are preferred to sentences continued with another's end."""
    count = 2 * STEPS
    table = {
        "prompt": [SENTENCES[7 * i][:12] for i in range(count)],
        "chosen": [SENTENCES[7 * i][12:] for i in range(count)],
        "rejected": [SENTENCES[7 * i + 5][20:] for i in range(count)],
    }
    return DPOTrainer(
        model=model,
        args=DPOConfig(output_dir=out, beta=0.5, **COMMON),
        train_dataset=Dataset.from_dict(table),
        processing_class=tokenizer,
        peft_config=LORA,
    )


def main(kind: str, model_folder: str, out: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    trainer = {"sft": sft, "dpo": dpo}[kind](model, tokenizer, out + ".trainer")
    assert isinstance(trainer.model, PeftModel)
    initial = {name: p.detach().cpu().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    save_file(initial, out + ".safetensors")
    trainer.train()
    history = trainer.state.log_history
    result = {
        "device": str(next(trainer.model.parameters()).device),
        "losses": [entry["loss"] for entry in history if "loss" in entry],
        "rows": [dict(row) for row in trainer.train_dataset],
    }
    Path(out).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
