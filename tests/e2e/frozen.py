"""Trains with attention dropout where no gradient is needed, and with ids and labels that nothing has, as on the CPU.

Run by the tests, in a process of its own: ``python -m tests.e2e.frozen FOLDER`` writes ``FOLDER/outcomes.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from patcher import patch_for_mac

patch_for_mac(simulate="1")

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
)

WORDS = 48


def checkpointed_gpt2() -> nn.Module:
    """Reentrant checkpointing: the forward of each block needs no gradient, its recomputation does."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, n_positions=16, n_embd=16, n_layer=2, n_head=2))
    model.gradient_checkpointing_enable({"use_reentrant": True})
    model.enable_input_require_grads()
    return model


def frozen_bert() -> nn.Module:
    """Only the classifier is trained; dropout stays at work in the layers below."""
    torch.manual_seed(0)
    shape = {"vocab_size": WORDS, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(**shape, intermediate_size=32, max_position_embeddings=16, num_labels=3)
    model = BertForSequenceClassification(config)
    model.bert.requires_grad_(False)
    return model


def losses(make: Callable[[], nn.Module], device: str) -> list[float]:
    """Of four steps with AdamW."""
    model = make().to(device).train()
    ids = torch.randint(WORDS, (4, 3, 12), generator=torch.Generator().manual_seed(1)).to(device)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    classifies = isinstance(model, BertForSequenceClassification)
    torch.manual_seed(2)
    seen = []
    for batch in ids:
        loss = model(input_ids=batch, labels=batch[:, 0] % 3 if classifies else batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(loss.item())
    return seen


def trained(folder: Path, make: Callable[[], nn.Module], rows: list[dict[str, Any]]) -> str:
    """What the Trainer raised, or nothing."""
    model = make()
    model.config._attn_implementation = "eager"
    arguments = TrainingArguments(
        str(folder / "trainer"), max_steps=1, per_device_train_batch_size=2, report_to=[], disable_tqdm=True
    )
    try:
        Trainer(model, arguments, train_dataset=rows).train()
    except IndexError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def main() -> None:
    folder = Path(sys.argv[1])
    row = list(range(8))
    right, wrong = ({"input_ids": [*row[:-1], last], "labels": [*row[:-1], last]} for last in (WORDS - 1, WORDS))
    outcomes = {
        "gpt2": {device: losses(checkpointed_gpt2, device) for device in ("cpu", "mps")},
        "bert": {device: losses(frozen_bert, device) for device in ("cpu", "mps")},
        "right ids": trained(folder, checkpointed_gpt2, [right, right]),
        "wrong id": trained(folder, checkpointed_gpt2, [right, wrong]),
        "right labels": trained(folder, frozen_bert, [{"input_ids": row, "label": label} for label in (0, 2)]),
        "wrong label": trained(folder, frozen_bert, [{"input_ids": row, "label": label} for label in (0, 3)]),
    }
    (folder / "outcomes.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main()
