"""GRPO with Unsloth: sampled answers get a reward for their vowels, and it rises.

python examples/grpo.py demo/SmolLM2-135M-Instruct
"""

# The one line more:
from patcher import patch_for_mac

patch_for_mac()

import argparse
from pathlib import Path
from statistics import fmean

from unsloth import FastLanguageModel
from datasets import load_dataset
from trl import GRPOConfig, GRPOTrainer

parser = argparse.ArgumentParser()
parser.add_argument("model", nargs="?", default="demo/SmolLM2-135M-Instruct")
parser.add_argument("--steps", type=int, default=30)
parser.add_argument("--rate", type=float, default=5e-4)
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


def vowels(completions: list[str], **_: object) -> list[float]:
    """The reward, a toy: the share of vowels in an answer."""
    return [sum(letter in "aeiou" for letter in text.lower()) / max(len(text), 1) for text in completions]


data = str(Path(__file__).parent / "data" / "preferences.jsonl")
trainer = GRPOTrainer(
    model=model,
    processing_class=tokenizer,
    reward_funcs=[vowels],
    train_dataset=load_dataset("json", data_files=data, split="train").select_columns("prompt"),
    args=GRPOConfig(
        output_dir="demo/grpo",
        per_device_train_batch_size=16,
        gradient_accumulation_steps=1,
        num_generations=8,
        max_completion_length=12,
        temperature=1.0,
        max_steps=options.steps,
        learning_rate=options.rate,
        logging_steps=1,
        optim="adamw_8bit",
        report_to="none",
        save_strategy="no",
        seed=3407,
    ),
)
trainer.train()

rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
print(f"reward:   {fmean(rewards[:4]):.3f} over the first four steps, {fmean(rewards[-4:]):.3f} over the last")
