"""What a family is: a class of transformers, a small configuration, a batch, and where its adapters go."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module

Batch = dict[str, Any]
"""Keyword arguments of a model's forward: tensors, lists of dictionaries of tensors, and flags."""


@dataclass(frozen=True)
class Family:
    """One family of models, as a small model with random weights. Nothing is downloaded.

    Attributes:
        name: as given to ``--model``.
        model: a class of transformers.
        config: its configuration class.
        settings: the configuration's arguments.
        batch: makes a batch of a given number of rows, labels included, on the CPU in fp32.
        lora: the modules that get adapters.
        generates: the keys of the batch that `generate` takes; none if it does not generate.
        autocast: whether half precision is autocast over fp32 weights, where the model cannot run with weights in it.
        needs: a package that its loss imports and transformers does not bring along.
    """

    name: str
    model: str
    config: str
    settings: Mapping[str, Any]
    batch: Callable[[int], Batch]
    lora: tuple[str, ...]
    generates: tuple[str, ...] = ()
    autocast: bool = False
    needs: str | None = None

    def build(self, seed: int = 0) -> Module:
        """A model with random weights that the seed decides, on the CPU in fp32, without dropout at work."""
        import copy

        import torch
        import transformers

        config = getattr(transformers, self.config)(**copy.deepcopy(dict(self.settings)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: Module = getattr(transformers, self.model)(config)
        return model.eval()

    def weights(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype of weights and inputs when the family runs in ``dtype``."""
        import torch

        return torch.float32 if self.autocast else dtype

    def precision(self, device: str, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
        """In which the forward of the model runs."""
        import torch

        wanted = self.autocast and dtype != torch.float32
        return torch.autocast(device, dtype) if wanted else contextlib.nullcontext()


def to(batch: Batch, device: str, dtype: torch.dtype) -> Batch:
    """The batch on a device, its floating-point tensors in a dtype; boxes of labels stay in fp32."""
    return {key: _to(value, device, dtype if key != "labels" else None) for key, value in batch.items()}


def _to(value: Any, device: str, dtype: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        tensor: Tensor = value.to(device)
        return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
    if isinstance(value, list):
        return [_to(item, device, dtype) for item in value]
    if isinstance(value, dict):
        return {key: _to(item, device, dtype) for key, item in value.items()}
    return value
