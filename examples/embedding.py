"""Embeddings with sentence-transformers: a language model learns to put a question near its answer. Toy data: 16 pairs.

python examples/embedding.py demo/SmolLM2-135M-Instruct
"""

# The one line more:
from patcher import patch_for_mac

patch_for_mac()

import argparse
from pathlib import Path
from statistics import fmean

from datasets import load_dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    losses,
    models,
)

parser = argparse.ArgumentParser()
parser.add_argument("model", nargs="?", default="demo/SmolLM2-135M-Instruct")
parser.add_argument("--steps", type=int, default=20)
options = parser.parse_args()

base = models.Transformer(options.model, max_seq_length=64)
model = SentenceTransformer(modules=[base, models.Pooling(base.get_word_embedding_dimension())], device="cuda")
data = str(Path(__file__).parent / "data" / "preferences.jsonl")
rows = load_dataset("json", data_files=data, split="train").select_columns(["prompt", "chosen"])


def found() -> int:
    """The number of questions whose own answer is the nearest of all answers."""
    similar = model.similarity(model.encode(rows["prompt"][:]), model.encode(rows["chosen"][:]))
    return sum(int(row.argmax()) == number for number, row in enumerate(similar))


before = found()
trainer = SentenceTransformerTrainer(
    model=model,
    train_dataset=rows,
    loss=losses.MultipleNegativesRankingLoss(model),
    args=SentenceTransformerTrainingArguments(
        output_dir="demo/embedding",
        per_device_train_batch_size=8,
        max_steps=options.steps,
        learning_rate=5e-5,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        seed=3407,
    ),
)
trainer.train()

values = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
print(f"loss:     {fmean(values[:4]):.3f} over the first four steps, {fmean(values[-4:]):.3f} over the last")
print(f"found:    {before} of {len(rows)} answers before, {found()} after")
