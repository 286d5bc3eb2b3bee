"""QLoRA with Unsloth: the base model lies in memory in 4 bit (NF4), through bitsandbytes.

python examples/qlora.py demo/SmolLM2-135M-Instruct
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
from trl import SFTConfig, SFTTrainer

parser = argparse.ArgumentParser()
parser.add_argument("model", nargs="?", default="demo/SmolLM2-135M-Instruct")
parser.add_argument("--steps", type=int, default=20)
options = parser.parse_args()

model, tokenizer = FastLanguageModel.from_pretrained(options.model, max_seq_length=512, load_in_4bit=True)
model = FastLanguageModel.get_peft_model(
    model,
    r=16,
    lora_alpha=16,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    use_gradient_checkpointing="unsloth",
    random_state=3407,
)
data = str(Path(__file__).parent / "data" / "preferences.jsonl")
rows = load_dataset("json", data_files=data, split="train")
rows = rows.map(lambda row: {"text": f"{row['prompt']} {row['chosen']}{tokenizer.eos_token}"})
trainer = SFTTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=rows.select_columns("text"),
    args=SFTConfig(
        output_dir="demo/qlora",
        dataset_text_field="text",
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

losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
layer = model.get_base_model().model.layers[0].mlp.down_proj.base_layer
print(f"loss:     {fmean(losses[:4]):.3f} over the first four steps, {fmean(losses[-4:]):.3f} over the last")
print(f"weights:  {type(layer).__name__}, {layer.weight.numel() * layer.weight.element_size()} bytes for ", end="")
print(f"{layer.in_features * layer.out_features} values")
print(f"memory:   {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB at the peak")
