"""TRL's DPO with LoRA; written for CUDA. python trl_dpo.py MODEL"""

import sys

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).to(torch.device("cuda"))
pairs = {"prompt": ["The old engineer"], "chosen": [" repairs a small engine."], "rejected": [" will not sell."]}
trainer = DPOTrainer(
    model=model,
    args=DPOConfig(output_dir="outputs", max_steps=3, per_device_train_batch_size=2, report_to="none"),
    train_dataset=Dataset.from_dict({name: texts * 8 for name, texts in pairs.items()}),
    processing_class=AutoTokenizer.from_pretrained(sys.argv[1]),
    peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
)
trainer.train()
print("device:", next(trainer.model.parameters()).device)
