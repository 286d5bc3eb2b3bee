"""Continued pre-training with Unsloth, embeddings included: learns the text of this project's documentation.

python examples/pretrain.py demo/SmolLM2-135M-Instruct
"""

# The one line more:
from patcher import patch_for_mac

patch_for_mac()

import argparse
from pathlib import Path
from statistics import fmean

from unsloth import FastLanguageModel, UnslothTrainer, UnslothTrainingArguments
from datasets import load_dataset

parser = argparse.ArgumentParser()
parser.add_argument("model", nargs="?", default="demo/SmolLM2-135M-Instruct")
parser.add_argument("--steps", type=int, default=20)
options = parser.parse_args()

model, tokenizer = FastLanguageModel.from_pretrained(options.model, max_seq_length=512, load_in_4bit=False)
model = FastLanguageModel.get_peft_model(
    model,
    r=16,
    lora_alpha=16,
    target_modules=["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens", "lm_head"],
    use_gradient_checkpointing="unsloth",
    random_state=3407,
)
pages = str(Path(__file__).parents[1] / "docs" / "*.md")
text = load_dataset("text", data_files=pages, sample_by="paragraph", split="train")
text = text.map(lambda row: {"text": row["text"] + tokenizer.eos_token})
trainer = UnslothTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=text,
    args=UnslothTrainingArguments(
        output_dir="demo/pretrain",
        dataset_text_field="text",
        max_length=256,
        packing=True,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=1,
        embedding_learning_rate=5e-5,
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
print(f"loss:     {fmean(losses[:4]):.3f} over the first four steps, {fmean(losses[-4:]):.3f} over the last")
