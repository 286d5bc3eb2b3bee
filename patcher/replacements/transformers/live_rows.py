"""Rows of a batch that have ended are computed no more.

``generate`` goes on with all rows until the last one has ended, and writes padding over what the others give. Rollouts
of GRPO end at lengths that differ by far. Here the model computes the rows that have not ended, from a cache that holds
them alone; ``generate`` sees a whole batch, of which ended rows have the logits 0, and draws as many random numbers as
ever.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patcher.engine.ledger import original
from patcher.replacements.transformers.shared_prompts import cache_of_rows, is_row_wise

STEPS = 16
"""Tokens between two looks at which rows have ended, each of which waits for the device."""


def _sample(
    self: Any,
    input_ids: Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    synced_gpus: bool = False,
    streamer: Any = None,
    **model_kwargs: Any,
) -> Any:
    """As upstream; when half of the rows that are computed have ended, they are left out from then on."""
    upstream = original("transformers.generation.utils:GenerationMixin._sample")
    rest = (generation_config, synced_gpus, streamer)
    if not _may_leave_out(self, input_ids, stopping_criteria, generation_config, synced_gpus, model_kwargs):
        return upstream(self, input_ids, logits_processor, stopping_criteria, *rest, **model_kwargs)
    criteria = _watched(stopping_criteria)
    rows = LiveRows(self, len(input_ids), criteria)
    hooks = (
        self.register_forward_pre_hook(rows.before, with_kwargs=True),
        self.register_forward_hook(rows.after),
    )
    try:
        return upstream(self, input_ids, logits_processor, criteria, *rest, **model_kwargs)
    finally:
        for hook in hooks:
            hook.remove()


def _may_leave_out(
    model: Any, input_ids: Tensor, criteria: Any, settings: Any, synced_gpus: bool, model_kwargs: dict[str, Any]
) -> bool:
    """Whether nobody sees more than the tokens, and rows that end, end for good.

    A cache that the caller has given is his after ``generate`` too. Without a criterion for the token that ends a row,
    upstream writes no padding over rows that others have ended.
    """
    return (
        not synced_gpus
        and not settings.return_dict_in_generate
        and not getattr(model_kwargs.get("past_key_values"), "_is_user_defined", False)
        and any(hasattr(criterion, "eos_token_id") for criterion in criteria)
        and is_row_wise(model, settings, {"input_ids": input_ids, **model_kwargs})
    )


def _watched(criteria: Any) -> Any:
    """The criteria, which keep what they have said of the rows since somebody looked at ``said``."""

    class Watched(type(criteria)):  # type: ignore[misc]
        said: list[Tensor]

        def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
            ended: Tensor = super().__call__(input_ids, scores, **kwargs)
            self.said.append(ended)
            return ended

    watched = Watched(criteria)
    watched.said = []
    return watched


class LiveRows:
    """The hooks of a model's forward: before, rows and cache become those that have not ended; after, logits all rows.

    Attributes:
        ended: of each row, whether it had ended at the last look.
        computed: the rows that are computed.
        live: the same on the device; None while these are all rows.
    """

    def __init__(self, model: torch.nn.Module, rows: int, criteria: Any) -> None:
        self.model, self.rows, self.criteria = model, rows, criteria
        self.ended = [False] * rows
        self.computed = [*range(rows)]
        self.live: Tensor | None = None
        self.step = 0

    def before(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """A forward pre-hook with keyword arguments."""
        if self.step and self.step % STEPS == 0:
            kwargs = self._leave_out(kwargs)
        self.step += 1
        if self.live is None:
            return args, kwargs
        return args, {name: self._of(self.live, value) for name, value in kwargs.items()}

    def after(self, model: Any, args: tuple[Any, ...], output: Any) -> None:
        """A forward hook."""
        if self.live is not None:
            whole = output.logits.new_zeros(self.rows, *output.logits.shape[1:])
            output.logits = whole.index_copy_(0, self.live, output.logits)

    def _of(self, rows: Tensor, value: Any) -> Any:
        """These rows of an argument that has a row for each of the batch."""
        if isinstance(value, Tensor) and value.ndim > 0 and len(value) == self.rows:
            return value.index_select(0, rows)
        return value

    def _leave_out(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments with a cache of the live rows, if at least half of what is computed has ended."""
        device = self.criteria.said[-1].device
        said = torch.stack(self.criteria.said).any(0).tolist()
        self.criteria.said.clear()
        self.ended = [before or now for before, now in zip(self.ended, said, strict=True)]
        keep = [place for place, row in enumerate(self.computed) if not self.ended[row]]
        if not keep or 2 * len(keep) > len(self.computed):
            return kwargs
        self.computed = [self.computed[place] for place in keep]
        self.live = torch.tensor(self.computed, device=device)
        cache = self._smaller(kwargs["past_key_values"], torch.tensor(keep, device=device))
        return {**kwargs, "past_key_values": cache}

    def _smaller(self, cache: Any, keep: Tensor) -> Any:
        """A cache of these rows of the one that there is.

        Unsloth's fast decoding gives views of buffers that its attention layers keep, and makes new ones of what it is
        given where a layer has none.
        """
        if isinstance(cache, tuple | list):
            for module in self.model.modules():
                for name in ("paged_attention", "paged_attention_K", "paged_attention_V"):
                    module.__dict__.pop(name, None)
        return cache_of_rows(cache, keep)
