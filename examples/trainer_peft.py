"""transformers' own Trainer with a LoRA of PEFT, without Unsloth and TRL. Toy data: 16 questions and answers.

python examples/trainer_peft.py demo/SmolLM2-135M-Instruct
"""

# The one line more:
from patcher import patch_for_mac

patch_for_mac()

import argparse
from pathlib import Path
from statistics import fmean

import torch
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

parser = argparse.ArgumentParser()
parser.add_argument("model", nargs="?", default="demo/SmolLM2-135M-Instruct")
parser.add_argument("--steps", type=int, default=20)
options = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(options.model)
model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16).to("cuda")
model = get_peft_model(model, LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
model.print_trainable_parameters()

data = str(Path(__file__).parent / "data" / "preferences.jsonl")
rows = load_dataset("json", data_files=data, split="train")
rows = rows.map(
    lambda row: tokenizer(f"{row['prompt']} {row['chosen']}{tokenizer.eos_token}", truncation=True, max_length=256),
    remove_columns=rows.column_names,
)
trainer = Trainer(
    model=model,
    train_dataset=rows,
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    args=TrainingArguments(
        output_dir="demo/trainer_peft",
        per_device_train_batch_size=4,
        max_steps=options.steps,
        learning_rate=2e-4,
        logging_steps=1,
        optim="adamw_torch_fused",
        bf16=True,
        gradient_checkpointing=True,
        report_to="none",
        save_strategy="no",
        seed=3407,
    ),
)
trainer.train()
model.save_pretrained("demo/trainer_peft/adapter")

losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
print(f"loss:     {fmean(losses[:4]):.3f} over the first four steps, {fmean(losses[-4:]):.3f} over the last")
print("adapter:  demo/trainer_peft/adapter")
