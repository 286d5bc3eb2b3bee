"""A reward model with Unsloth: it scores the better of two answers higher. Toy data: 16 pairs.

python examples/reward.py demo/SmolLM2-135M-Instruct
"""

# The one line more:
from patcher import patch_for_mac

patch_for_mac()

import argparse
from pathlib import Path
from statistics import fmean

from unsloth import FastLanguageModel
import torch
from datasets import load_dataset
from trl import RewardConfig, RewardTrainer

parser = argparse.ArgumentParser()
parser.add_argument("model", nargs="?", default="demo/SmolLM2-135M-Instruct")
parser.add_argument("--steps", type=int, default=20)
options = parser.parse_args()

model, tokenizer = FastLanguageModel.from_pretrained(
    options.model, max_seq_length=512, load_in_4bit=False, num_labels=1
)
model = FastLanguageModel.get_peft_model(
    model,
    r=16,
    lora_alpha=16,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    use_gradient_checkpointing="unsloth",
    random_state=3407,
)
data = str(Path(__file__).parent / "data" / "preferences.jsonl")
pairs = load_dataset("json", data_files=data, split="train")
trainer = RewardTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=pairs,
    args=RewardConfig(
        output_dir="demo/reward",
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

model.eval()
for ending in ("chosen", "rejected"):
    inputs = tokenizer(pairs[0]["prompt"] + pairs[0][ending], return_tensors="pt").to("cuda")
    with torch.no_grad():
        print(f"{ending + ':':<9} {model(**inputs).logits.item():+.3f}  {pairs[0][ending]}")
losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
print(f"loss:     {fmean(losses[:4]):.3f} over the first four steps, {fmean(losses[-4:]):.3f} over the last")
