"""transformers' Trainer with full fine-tuning; written for CUDA. python trainer.py MODEL"""

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

device = "cuda" if torch.cuda.is_available() else "cpu"
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).to("cuda")
ids = tokenizer(["The old engineer repairs a small engine."] * 8)["input_ids"]
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="outputs",
        per_device_train_batch_size=2,
        max_steps=3,
        optim="adamw_torch_fused",
        tf32=True,
        dataloader_pin_memory=True,
        report_to="none",
        save_strategy="no",
    ),
    train_dataset=[{"input_ids": row, "labels": row} for row in ids],
)
trainer.train()
print("device:", trainer.model.device)
