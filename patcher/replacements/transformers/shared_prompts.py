"""Prompts that several rows of ``generate`` share are computed once.

GRPO asks for several completions of a prompt, beams and ``num_return_sequences`` repeat it: up to the first new token
all of them compute the same. What is computed once are the rows that differ from the one before; then logits, keys and
values are copied for the rest, so that decoding finds what it would have found.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from patcher.engine.ledger import original

INDIFFERENT = ("transformers", "peft", "unsloth", "unsloth_zoo", "patcher")
"""Packages whose hooks take any number of rows: inputs that require a gradient, what a model gives to its caller."""


def _prefill(
    self: Any, input_ids: Tensor, generation_config: Any, model_kwargs: dict[str, Any], is_first_iteration: bool = True
) -> Any:
    """As upstream; rows that have the prompt of the row before are not computed but copied."""
    upstream = original("transformers.generation.utils:GenerationMixin._prefill")
    inputs = {"input_ids": input_ids, **model_kwargs}
    if not (is_row_wise(self, generation_config, inputs) and is_first_iteration):
        return upstream(self, input_ids, generation_config, model_kwargs, is_first_iteration)
    new = _differs_from_the_row_before([value for value in inputs.values() if isinstance(value, Tensor)])
    if all(new):
        return upstream(self, input_ids, generation_config, model_kwargs, is_first_iteration)
    first = torch.tensor([row for row, differs in enumerate(new) if differs], device=input_ids.device)
    prompt_of_row = torch.tensor(new, device=input_ids.device).cumsum(0).sub_(1)
    once = {name: _rows(value, first) for name, value in inputs.items()}
    outputs = upstream(self, once.pop("input_ids"), generation_config, once, is_first_iteration)
    outputs.logits = outputs.logits.index_select(0, prompt_of_row)
    outputs.past_key_values = cache_of_rows(outputs.past_key_values, prompt_of_row)
    return outputs


def is_row_wise(model: Any, generation_config: Any, inputs: Mapping[str, Any]) -> bool:
    """Whether each row of a batch that ``generate`` begins on mps is computed apart, and gives logits and a cache only.

    So text models only, from empty caches of keys and values, nothing that draws random numbers, and no hook of a
    script, or of PEFT for an adapter of each row. ``inputs`` are the ``input_ids`` and what the model is given beside
    them.
    """
    ids, cache = inputs["input_ids"], inputs.get("past_key_values")
    return (
        ids.device.type == "mps"
        and len(ids) > 1
        and model.config.get_text_config() is model.config
        and not model.config.is_encoder_decoder
        and generation_config.prefill_chunk_size is None
        and not any(_asks_for_more(settings) for settings in (generation_config, model.config))
        and bool(inputs.get("use_cache"))
        and _is_empty(cache)
        and all(_goes_by_rows(value, len(ids)) for value in inputs.values() if value is not cache)
        and not any(_is_watched(module) for module in model.modules())
        and not (model.training and any(_is_random(module) for module in model.modules()))
    )


def _asks_for_more(settings: Any) -> bool:
    return any(getattr(settings, f"output_{what}", False) for what in ("attentions", "hidden_states"))


def _is_empty(cache: Any) -> bool:
    """Whether a cache will hold keys and values of all rows, and nothing else, and holds none yet."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    by_rows = (DynamicLayer, DynamicSlidingWindowLayer)
    return (
        type(cache) is DynamicCache
        and cache.get_seq_length() == 0
        and all(type(layer) in by_rows for layer in cache.layers)
    )


def _goes_by_rows(value: Any, rows: int) -> bool:
    """Whether an argument is a tensor with a row for each of the batch, or none at all."""
    if isinstance(value, Tensor):
        return value.ndim > 0 and len(value) == rows
    return value is None or isinstance(value, bool | int | float | str)


def _is_watched(module: torch.nn.Module) -> bool:
    """Whether a module has a hook that may count on whole batches: any but a plain function of `INDIFFERENT`.

    PEFT binds what belongs to each row to its hooks by ``functools.partial``.
    """
    hooks = chain(module._forward_pre_hooks.values(), module._forward_hooks.values())
    return any(str(getattr(hook, "__module__", "")).partition(".")[0] not in INDIFFERENT for hook in hooks)


def _is_random(module: torch.nn.Module) -> bool:
    """Whether a module in training may draw numbers: it has a rate of dropout, or a width of noise, above 0."""
    if isinstance(module, torch.nn.modules.dropout._DropoutNd):
        return module.p > 0
    return any(
        isinstance(value, int | float) and value > 0
        for name, value in vars(module).items()
        if any(word in name for word in ("drop", "jitter", "noise"))
    )


def _differs_from_the_row_before(tensors: list[Tensor]) -> list[bool]:
    """For each row of all tensors; waits for the device, once."""
    differs = torch.stack([(x[1:] != x[:-1]).unsqueeze(-1).flatten(1).any(1) for x in tensors]).any(0)
    return [True, *differs.tolist()]


def _rows(value: Any, rows: Tensor) -> Any:
    return value.index_select(0, rows) if isinstance(value, Tensor) else value


def cache_of_rows(cache: Any, rows: Tensor) -> Any:
    """The cache with these of its rows; Unsloth's fast decoding has keys and values of each layer, in a sequence."""
    if not isinstance(cache, tuple | list):
        cache.batch_select_indices(rows)
        return cache
    return tuple(tuple(x.index_select(0, rows) for x in layer) for layer in cache)
