"""Which batch and which module a Trainer's errors name, on small models."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from patcher.errors import RowEmpty
from patcher.replacements.transformers import trainer_batches as transformers_trainer_batches
from patcher.replacements.transformers import trainer_loss as transformers_trainer_loss
from patcher.replacements.transformers.trainer_loss import Forward

EMPTY = {"input_ids": torch.zeros(2, 0)}


class Rows:
    """A data set of token lists."""

    column_names = ("input_ids",)

    def __init__(self, *rows: list[int] | None) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, column: str) -> tuple[list[int] | None, ...]:
        return self.rows


class Masked(nn.Module):
    """Adds a mask of minus infinity where it is negative, with a finite result."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.full((2,), -torch.inf), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.maximum(x, self.mask)


class Broken(nn.Module):
    """Makes NaN of anything, after a module that is sound."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Masked()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * torch.nan


def trainer(model: nn.Module) -> Any:
    return SimpleNamespace(
        model=model,
        train_dataset=Rows([1], [], [2], []),
        eval_dataset=Rows([], [1]),
        callback_handler=SimpleNamespace(eval_dataloader=SimpleNamespace(dataset=Rows([1], None, []))),
        state=SimpleNamespace(global_step=4),
    )


def message(run: Any) -> str:
    with pytest.raises(RowEmpty) as caught:
        transformers_trainer_batches._prepare_inputs(run, EMPTY)
    return str(caught.value)


def test_the_rows_of_the_data_set_that_is_read_are_named() -> None:
    """In evaluation those of the data set at hand, which may be another one than ``eval_dataset``."""
    run = trainer(nn.Embedding(4, 2))
    assert "rows 1, 3 of train_dataset" in message(run)
    run.model.eval()
    assert "row 2 of the evaluated data set" in message(run)


def test_floating_point_inputs_of_a_model_without_embeddings_are_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be features."""
    monkeypatch.setattr(transformers_trainer_batches, "original", lambda target: lambda self, inputs: inputs)
    assert transformers_trainer_batches._prepare_inputs(trainer(nn.Linear(2, 2)), EMPTY) is EMPTY


def test_a_module_with_a_finite_output_is_not_blamed() -> None:
    """The mask of the module within is infinite on purpose; the one around it made the NaN."""
    model = Broken()
    forward = Forward(trainer(model))
    handle = nn.modules.module.register_module_forward_hook(forward.see, with_kwargs=True)
    try:
        model(torch.ones(2))
    finally:
        handle.remove()
    assert transformers_trainer_loss._innermost(forward) is model
