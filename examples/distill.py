"""Distillation with TRL alone: the lower half of a model's layers learns to say what the whole model would say.

python examples/distill.py demo/SmolLM2-135M-Instruct
"""

# The one line more:
from patcher import patch_for_mac

patch_for_mac()

import argparse
from pathlib import Path
from statistics import fmean

from datasets import load_dataset
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from trl import DistillationConfig, DistillationTrainer

parser = argparse.ArgumentParser()
parser.add_argument("model", nargs="?", default="demo/SmolLM2-135M-Instruct")
parser.add_argument("--steps", type=int, default=30)
options = parser.parse_args()

layers = AutoConfig.from_pretrained(options.model).num_hidden_layers
student = AutoModelForCausalLM.from_pretrained(options.model, num_hidden_layers=layers // 2).to("cuda")
data = str(Path(__file__).parent / "data" / "preferences.jsonl")
trainer = DistillationTrainer(
    model=student,
    teacher_model=options.model,
    processing_class=AutoTokenizer.from_pretrained(options.model, padding_side="left"),
    train_dataset=load_dataset("json", data_files=data, split="train").select_columns("prompt"),
    args=DistillationConfig(
        output_dir="demo/distill",
        beta=0.0,
        max_completion_length=24,
        per_device_train_batch_size=8,
        max_steps=options.steps,
        learning_rate=2e-4,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        seed=3407,
    ),
)
trainer.train()

losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
print(f"layers:   {layers // 2} of {layers}")
print(f"loss:     {fmean(losses[:4]):.3f} over the first four steps, {fmean(losses[-4:]):.3f} over the last")
