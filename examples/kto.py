"""KTO with Unsloth: answers with thumbs up or down, without pairs. Toy data: 32 answers.

python examples/kto.py demo/SmolLM2-135M-Instruct
"""

# The one line more:
from patcher import patch_for_mac

patch_for_mac()

import argparse
from pathlib import Path
from statistics import fmean

from unsloth import FastLanguageModel
from datasets import load_dataset
from trl import KTOConfig, KTOTrainer, unpair_preference_dataset

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
trainer = KTOTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=unpair_preference_dataset(load_dataset("json", data_files=data, split="train")).shuffle(seed=3407),
    args=KTOConfig(
        output_dir="demo/kto",
        beta=0.1,
        max_length=256,
        per_device_train_batch_size=8,
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
for key in ("loss", "rewards/margins"):
    first, last = (fmean(entry[key] for entry in part if key in entry) for part in (log[:4], log[-4:]))
    print(f"{key + ':':<17} {first:.3f} over the first four steps, {last:.3f} over the last")
