"""What the demo's first losses have to be, on the CPU, with the release's transformers, without patches and Unsloth:

    python -m tests.versions.demo_reference FOLDER

FOLDER is where the demo was run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, default_data_collator

from tests.versions.demo import ENDINGS, KEPT, MODEL


def first_losses(folder: Path, ending: str) -> Iterator[float]:
    """Cross entropy of the answers' tokens before the first `KEPT` steps: a mean over the 8 rows of a step.

    ``ending`` is what is trained after the token that ends a turn.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder / "demo" / "adapter")
    model = AutoModelForCausalLM.from_pretrained(folder / "demo" / MODEL, dtype=torch.float32).eval()
    lines = (folder / "demo" / "dialogues.jsonl").read_text().splitlines()
    dialogues = [json.loads(line)["messages"] for line in lines]
    batches = islice(in_the_order_of_the_trainer(len(dialogues), folder / "order"), 2 * KEPT)
    losses = [torch.cat([of_answer(model, tokenizer, dialogues[row], ending) for row in batch]) for batch in batches]
    for first, second in zip(losses[::2], losses[1::2], strict=True):
        yield float(torch.cat([first, second]).mean())


@torch.no_grad()
def of_answer(model: Any, tokenizer: Any, dialogue: list[dict[str, str]], ending: str) -> Tensor:
    """Of each token that follows the question."""
    text = tokenizer.apply_chat_template(dialogue, tokenize=False).rstrip("\n") + ending
    asked = tokenizer.apply_chat_template(dialogue[:1], tokenize=False, add_generation_prompt=True)
    whole, begin = tokenizer(text, return_tensors="pt")["input_ids"], len(tokenizer(asked)["input_ids"])
    return cross_entropy(model(whole).logits[0, begin - 1 : -1], whole[0, begin:], reduction="none")


def in_the_order_of_the_trainer(rows: int, folder: Path) -> Iterator[list[int]]:
    """The numbers of the rows of each batch, as transformers' Trainer draws them for the demo's arguments."""
    arguments = TrainingArguments(
        str(folder),
        seed=3407,
        per_device_train_batch_size=4,
        use_cpu=True,
        report_to="none",
        remove_unused_columns=False,
    )
    numbers = [{"row": number} for number in range(rows)]
    trainer = Trainer(torch.nn.Linear(1, 1), arguments, default_data_collator, numbers)
    return (batch["row"].tolist() for batch in trainer.get_train_dataloader())


if __name__ == "__main__":
    print("ANSWER" + json.dumps([list(first_losses(Path(sys.argv[1]), ending)) for ending in ENDINGS]))
