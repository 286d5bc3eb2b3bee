"""Seq2SeqTrainer: a small T5, from scratch, learns 21 phrases of French, and is asked 4 others.

python examples/seq2seq.py demo/SmolLM2-135M-Instruct
"""

# The one line more:
from patcher import patch_for_mac

patch_for_mac()

import argparse
import random
from statistics import fmean

from datasets import Dataset
from transformers import (
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
)

parser = argparse.ArgumentParser()
parser.add_argument("model", nargs="?", default="demo/SmolLM2-135M-Instruct")
parser.add_argument("--steps", type=int, default=150)
options = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(options.model)
sizes = {"d_model": 128, "d_kv": 32, "d_ff": 256, "num_layers": 2, "num_heads": 4}
special = {
    "pad_token_id": tokenizer.pad_token_id,
    "eos_token_id": tokenizer.eos_token_id,
    "decoder_start_token_id": tokenizer.pad_token_id,
}
model = T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), **sizes, **special)).to("cuda")

colors = {"red": "rouge", "yellow": "jaune", "big": "énorme", "honest": "honnête", "young": "jeune"}
animals = {"cat": "chat", "dog": "chien", "horse": "cheval", "rabbit": "lapin", "wolf": "loup"}
pairs = [(f"the {c} {a}", f"le {animals[a]} {colors[c]}") for c in colors for a in animals]
random.Random(0).shuffle(pairs)
rows = Dataset.from_dict(
    {
        "input_ids": tokenizer([english for english, _ in pairs])["input_ids"],
        "labels": tokenizer([french + tokenizer.eos_token for _, french in pairs])["input_ids"],
    }
)
trainer = Seq2SeqTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=rows.select(range(4, len(rows))),
    eval_dataset=rows.select(range(4)),
    data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
    args=Seq2SeqTrainingArguments(
        output_dir="demo/seq2seq",
        per_device_train_batch_size=16,
        max_steps=options.steps,
        learning_rate=3e-3,
        logging_steps=1,
        predict_with_generate=True,
        generation_max_length=16,
        report_to="none",
        save_strategy="no",
        seed=3407,
    ),
)
trainer.train()

losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
print(f"loss:     {fmean(losses[:4]):.3f} over the first four steps, {fmean(losses[-4:]):.3f} over the last")
predicted = trainer.predict(trainer.eval_dataset).predictions
for (english, _), tokens in zip(pairs, predicted, strict=False):
    tokens = [token for token in tokens if token >= 0]
    print(f"{english:<16} -> {tokenizer.decode(tokens, skip_special_tokens=True)}")
