"""Waits for the GPU of each step of a training through Unsloth and TRL, on the simulated Mac's meter.

python -m tests.e2e.step_waits sft|dpo FOLDER [padded]

Without "padded" Unsloth makes batches of SFT without padding.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

STEPS, LOGGED = 6, 3
"""Optimizer steps, and of which each is logged."""


def main(kind: str, folder: Path, *padded: str) -> None:
    """Prints the waits of each step."""
    from patcher import patch_for_mac

    patch_for_mac(simulate="M3 Max 36GB")
    import torch
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, LlamaConfig
    from unsloth import FastLanguageModel

    from patcher.simulator.meter import Meter
    from patcher.verify import text

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    path = folder / "model"
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(path)
    text.tokenizer(["a few words", "and some more"], 300).save_pretrained(path)
    model, tokenizer = FastLanguageModel.from_pretrained(str(path), dtype=torch.bfloat16, load_in_4bit=False)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = FastLanguageModel.get_peft_model(model, r=4, target_modules=names)
    pair = {"prompt": "a few words", "chosen": " and some more", "rejected": " words"}
    trainer: Any = {"sft": trl.SFTTrainer, "dpo": trl.DPOTrainer}[kind]
    settings: Any = {"sft": trl.SFTConfig, "dpo": trl.DPOConfig}[kind]
    padding = {"padding_free": False} if padded else {}
    arguments = settings(
        output_dir=str(folder / "out"), per_device_train_batch_size=2, max_steps=STEPS, logging_steps=LOGGED, bf16=True,
        save_strategy="no", report_to="none", disable_tqdm=True, max_length=64, optim="adamw_torch_fused",
        **padding,
    )  # fmt: skip
    texts = [{"text": "a few words and some more " * (1 + number % 3)} for number in range(16)]
    rows = Dataset.from_list(texts if kind == "sft" else [pair] * 16)
    training = trainer(model=model, processing_class=tokenizer, train_dataset=rows, args=arguments)
    with Meter(modules=False) as meter:
        training.train()
    print("ANSWER" + json.dumps([step.synchronizations for step in meter.usage().steps]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
