"""Checkpoints: trains half of the steps, then goes on from the newest complete checkpoint.

python examples/resume.py demo/SmolLM2-135M-Instruct
"""

# The one line more:
from patcher import patch_for_mac

patch_for_mac()

import argparse
from pathlib import Path

from unsloth import FastLanguageModel
from datasets import load_dataset
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

parser = argparse.ArgumentParser()
parser.add_argument("model", nargs="?", default="demo/SmolLM2-135M-Instruct")
parser.add_argument("--steps", type=int, default=20)
options = parser.parse_args()

data = str(Path(__file__).parent / "data" / "preferences.jsonl")
rows = load_dataset("json", data_files=data, split="train")


def trainer() -> SFTTrainer:
    """As each run of the script makes it: nothing is left of the run before but what is on the disk."""
    model, tokenizer = FastLanguageModel.from_pretrained(options.model, max_seq_length=512, load_in_4bit=False)
    model = FastLanguageModel.get_peft_model(
        model, r=16, lora_alpha=16, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], random_state=3407
    )
    texts = rows.map(lambda row: {"text": f"{row['prompt']} {row['chosen']}{tokenizer.eos_token}"})
    return SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=texts.select_columns("text"),
        args=SFTConfig(
            output_dir="demo/resume",
            dataset_text_field="text",
            max_length=256,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=1,
            max_steps=options.steps,
            learning_rate=2e-4,
            logging_steps=1,
            optim="adamw_8bit",
            report_to="none",
            save_steps=options.steps // 2,
            save_total_limit=2,
            seed=3407,
        ),
    )


class StopHalfway(TrainerCallback):
    def on_save(self, args, state, control, **_):
        control.should_training_stop = True


first = trainer()
first.add_callback(StopHalfway())
first.train()
print(f"stopped:  after step {first.state.global_step} of {options.steps}")

second = trainer()
second.train(resume_from_checkpoint=True)
losses = [entry["loss"] for entry in second.state.log_history if "loss" in entry]
print(f"finished: step {second.state.global_step}; {len(losses)} losses from {losses[0]:.3f} to {losses[-1]:.3f}")
