"""TRL's SFT with LoRA; written for CUDA. python trl_sft.py MODEL"""

import sys

from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

trainer = SFTTrainer(
    model=sys.argv[1],
    args=SFTConfig(output_dir="outputs", max_steps=3, per_device_train_batch_size=2, report_to="none"),
    train_dataset=Dataset.from_dict({"text": ["The old engineer repairs a small engine."] * 8}),
    peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
)
trainer.model.cuda()
trainer.train()
print("device:", next(trainer.model.parameters()).device)
