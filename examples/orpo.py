"""ORPO with Unsloth: SFT on the better of two answers and preference in one loss. Toy data: 16 pairs.

python examples/orpo.py demo/SmolLM2-135M-Instruct
"""

# The one line more:
from patcher import patch_for_mac

patch_for_mac()

import argparse
from pathlib import Path
from statistics import fmean

from unsloth import FastLanguageModel
from datasets import load_dataset
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

parser = argparse.ArgumentParser()
parser.add_argument("model", nargs="?", default="demo/SmolLM2-135M-Instruct")
parser.add_argument("--steps", type=int, default=20)
options = parser.parse_args()

model, tokenizer = FastLanguageModel.from_pretrained(options.model, max_seq_length=512, load_in_4bit=False)
model = FastLanguageModel.get_peft_model(
    model,
    r=16,
    lora_alpha=16,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    use_gradient_checkpointing="unsloth",
    random_state=3407,
)
data = str(Path(__file__).parent / "data" / "preferences.jsonl")
trainer = ORPOTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=load_dataset("json", data_files=data, split="train"),
    args=ORPOConfig(
        output_dir="demo/orpo",
        beta=0.1,
        max_length=256,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=1,
        max_steps=options.steps,
        learning_rate=2e-4,
        logging_steps=1,
        optim="adamw_8bit",
        report_to="none",
        save_strategy="no",
        seed=3407,
    ),
)
trainer.train()

log = [entry for entry in trainer.state.log_history if "loss" in entry]
for key in ("loss", "log_odds_ratio"):
    first, last = (fmean(entry[key] for entry in part) for part in (log[:4], log[-4:]))
    print(f"{key + ':':<17} {first:.3f} over the first four steps, {last:.3f} over the last")
