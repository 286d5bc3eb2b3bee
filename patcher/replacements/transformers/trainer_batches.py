"""What a Trainer does with a batch before it is computed, and says of one that cannot be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch

from patcher.engine.ledger import original
from patcher.errors import RowEmpty, compose
from patcher.replacements.transformers.flash_attention import take_packed_rows

NAMED = 5
"""So many rows are named at most."""


def _prepare_inputs(self: Any, inputs: Any) -> Any:
    """The batch on the device, as transformers puts it there; a model gets the attention that packed rows need.

    Raises:
        RowEmpty: its tokens are floating-point numbers, which is what a collator makes of a row without tokens.
    """
    tokens = inputs.get("input_ids") if isinstance(inputs, Mapping) else None
    if isinstance(tokens, torch.Tensor) and tokens.is_floating_point() and _looks_up_tokens(self.model):
        raise _error(self)
    take_packed_rows(self.model, inputs)
    return original("transformers.trainer:Trainer._prepare_inputs")(self, inputs)


def _looks_up_tokens(model: torch.nn.Module) -> bool:
    """Whether the model has a table of embeddings; another one may well be given floating-point numbers."""
    return any(isinstance(module, torch.nn.Embedding) for module in model.modules())


def _error(trainer: Any) -> RowEmpty:
    name, dataset = "train_dataset", trainer.train_dataset
    if not trainer.model.training:
        name = "the evaluated data set"
        dataset = getattr(trainer.callback_handler.eval_dataloader, "dataset", None)
    rows = list(islice(_empty(dataset), NAMED + 1))
    listed = ", ".join(map(str, rows[:NAMED])) + (" and others" if len(rows) > NAMED else "")
    return RowEmpty(
        compose(
            f"a row of {name} has no tokens, and a batch with it cannot be computed",
            target=f"row{'s' * (len(rows) > 1)} {listed} of {name}" if rows else f"a row of the batch ({name})",
            found="input_ids is empty: an empty text, and nothing appended to it",
            left=f"the weights are those after step {trainer.state.global_step}",
            run="leave such rows out before the trainer is made: dataset.filter(lambda row: row['text']); or end every "
            "text with tokenizer.eos_token",
        )
    )


def _empty(dataset: Any) -> Iterator[int]:
    """The numbers of the rows without tokens, where the data set has numbered rows."""
    if "input_ids" in (getattr(dataset, "column_names", None) or ()) and hasattr(dataset, "__len__"):
        yield from (
            number for number, tokens in enumerate(dataset["input_ids"]) if tokens is not None and not len(tokens)
        )
