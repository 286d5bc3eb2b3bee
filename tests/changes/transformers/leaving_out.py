"""Generates rows of very different lengths on the simulated Mac, with and without those that have ended, as JSON.

python -m tests.changes.transformers.leaving_out
"""

from __future__ import annotations

import json
from typing import Any

from patcher import patch_for_mac

patch_for_mac(simulate="M2 16GB")

import torch  # noqa: E402
from transformers import DynamicCache, GenerationMixin, MistralConfig, MistralForCausalLM  # noqa: E402

from patcher.engine.ledger import original  # noqa: E402
from patcher.simulator.meter import Meter  # noqa: E402

TARGET = "transformers.generation.utils:GenerationMixin._sample"
ENDS = (20, 90, 20, 45, 10, 90, 20, 20)
"""Tokens after which each row ends."""
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"do_sample": True},
    "penalty": {"repetition_penalty": 1.2, "no_repeat_ngram_size": 6},
    "several sequences": {"num_return_sequences": 2, "do_sample": True},
}


class EndsAt:
    """A processor of logits after which a row can only end, at its length, and not before."""

    def __init__(self, prompt: int, eos: int) -> None:
        self.prompt, self.eos = prompt, eos

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, self.eos] = -torch.inf
        made = input_ids.shape[1] - self.prompt
        each = len(scores) // len(ENDS)
        for row in range(len(scores)):
            if made >= ENDS[row // each]:
                scores[row] = -torch.inf
                scores[row, self.eos] = 0
        return scores


def mistral() -> MistralForCausalLM:
    """Two layers, with a sliding window that is shorter than what is generated."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 24, "initializer_range": 0.5}
    tokens: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return MistralForCausalLM(MistralConfig(**sizes, **heads, **tokens)).eval().to("mps")


class Model:
    """A model that keeps how many rows each forward has computed."""

    def __init__(self) -> None:
        self.model = mistral()
        self.rows: list[int] = []
        forward = self.model.forward

        def counted(input_ids: torch.Tensor, **rest: Any) -> Any:
            self.rows.append(len(input_ids))
            return forward(input_ids, **rest)

        self.model.forward = counted

    def __call__(self, **settings: Any) -> tuple[Any, list[int]]:
        """What ``generate`` gives for eight prompts, of which two are padded, and the rows of every forward."""
        generator = torch.Generator().manual_seed(1)
        prompts = torch.randint(3, 64, (len(ENDS), 8), generator=generator)
        prompts[1, :3] = prompts[4, :5] = 0
        torch.manual_seed(3)
        self.rows.clear()
        asked = {"attention_mask": (prompts != 0).long().to("mps"), "max_new_tokens": 120, "do_sample": False}
        ends: Any = [EndsAt(prompts.shape[1], 2)]
        return self.model.generate(prompts.to("mps"), logits_processor=ends, **{**asked, **settings}), [*self.rows]

    def upstream(self, **settings: Any) -> tuple[Any, list[int]]:
        """The same as upstream does it."""
        patched, GenerationMixin._sample = GenerationMixin._sample, original(TARGET)
        try:
            return self(**settings)
        finally:
            GenerationMixin._sample = patched


def ways(model: Model) -> dict[str, Any]:
    """The tokens of both, and the rows of forwards: their sum, and how many there are of each."""
    found = {}
    for way, settings in WAYS.items():
        (ours, rows), (theirs, all_rows) = model(**settings), model.upstream(**settings)
        found[way] = {"tokens": [ours.tolist(), theirs.tolist()], "rows": [rows, all_rows]}
    return found


def work(model: Model) -> list[int]:
    """FLOPs of both."""
    found = []
    for run in (model, model.upstream):
        with Meter(modules=False) as meter:
            run()
        found.append(meter.usage().flops)
    return found


def not_left_out(model: Model) -> dict[str, list[int]]:
    """Rows of the last forward where the model must compute all."""
    told = {"return_dict_in_generate": True}
    found = {"what is returned": model(**told)[1], "a static cache": model(cache_implementation="static")[1]}
    model.model.generation_config.eos_token_id = None
    found["no token that ends"] = model(max_new_tokens=30)[1]
    model.model.generation_config.eos_token_id = 2
    hooks = len(model.model._forward_hooks) + len(model.model._forward_pre_hooks)
    cache = DynamicCache(config=model.model.config)
    found["the caller's cache"] = [*model(past_key_values=cache)[1], len(cache.layers[0].keys)]
    return {**{case: [rows[-1]] for case, rows in found.items()}, "hooks that stay": [hooks]}


if __name__ == "__main__":
    model = Model()
    print(json.dumps({"ways": ways(model), "work": work(model), "rows": not_left_out(model)}))
