"""The main job in small: Unsloth, LoRA, SFT; written for CUDA. python main_job.py MODEL"""

import sys

import torch
import unsloth  # noqa: F401
from datasets import Dataset
from trl import SFTConfig, SFTTrainer
from unsloth import FastLanguageModel

model, tokenizer = FastLanguageModel.from_pretrained(sys.argv[1], max_seq_length=128, load_in_4bit=False)
model = FastLanguageModel.get_peft_model(model, r=4, lora_alpha=8, use_gradient_checkpointing="unsloth")
trainer = SFTTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=Dataset.from_dict({"text": ["The old engineer repairs a small engine."] * 16}),
    args=SFTConfig(
        output_dir="outputs",
        per_device_train_batch_size=2,
        max_steps=3,
        optim="adamw_8bit",
        fp16=not torch.cuda.is_bf16_supported(),
        bf16=torch.cuda.is_bf16_supported(),
        report_to="none",
        save_strategy="no",
    ),
)
trainer.train()
print("device:", next(model.parameters()).device, torch.cuda.get_device_name())
