"""Generates on the simulated Mac with and without sharing of prompts, and prints what it found as JSON.

python -m tests.changes.transformers.sharing
"""

from __future__ import annotations

import json
from typing import Any

from patcher import patch_for_mac

patch_for_mac(simulate="M2 16GB")

import torch  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from transformers import DynamicCache, GenerationMixin, MistralConfig, MistralForCausalLM  # noqa: E402

from patcher.engine.ledger import original  # noqa: E402
from patcher.simulator.meter import Meter  # noqa: E402

PROMPTS = torch.tensor([[0, 0, 5, 6, 7, 8, 9, 10], [3, 4, 5, 6, 7, 8, 9, 11], [0, 0, 5, 6, 7, 8, 9, 10]])
"""Two are padded and equal, with another one in between."""
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "long": {},
    "sampled": {"do_sample": True},
    "several sequences": {"num_return_sequences": 2, "do_sample": True},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
}
TARGET = "transformers.generation.utils:GenerationMixin._prefill"


def mistral() -> MistralForCausalLM:
    """Two layers, with a sliding window that is shorter than what is generated."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 10, "initializer_range": 0.5}
    tokens: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None}
    return MistralForCausalLM(MistralConfig(**sizes, **heads, **tokens)).eval()


class Model:
    """A model that keeps how many rows the first forward of each generation has computed."""

    def __init__(self, device: str = "mps") -> None:
        self.model = mistral().to(device)
        self.rows: list[int] = []
        forward = self.model.forward

        def counted(input_ids: torch.Tensor, number: Any = None, **rest: Any) -> Any:
            self.rows.append(len(input_ids))
            return forward(input_ids, **rest)

        self.model.forward = counted

    def __call__(self, rows: torch.Tensor, **settings: Any) -> tuple[Any, int]:
        """What ``generate`` gives, and how many rows its prefill computed."""
        torch.manual_seed(3)
        self.rows.clear()
        rows = rows.to(self.model.device)
        settings = {"attention_mask": (rows != 0).long(), "max_new_tokens": 6, "do_sample": False, **settings}
        return self.model.generate(rows, **settings), self.rows[0]

    def apart(self, rows: torch.Tensor, **settings: Any) -> tuple[Any, int]:
        """The same as upstream does it."""
        patched, GenerationMixin._prefill = GenerationMixin._prefill, original(TARGET)
        try:
            return self(rows, **settings)
        finally:
            GenerationMixin._prefill = patched


def ways(model: Model) -> dict[str, Any]:
    """Each prompt four times in every way: rows that were computed, and the tokens of both."""
    found = {}
    for way, settings in WAYS.items():
        rows = PROMPTS.repeat_interleave(4, 0).repeat(1, 4 if way == "long" else 1)
        (shared, computed), (apart, all_rows) = model(rows, **settings), model.apart(rows, **settings)
        found[way] = {"rows": [computed, all_rows], "tokens": [shared.tolist(), apart.tolist()]}
    return found


def scores(model: Model) -> dict[str, float]:
    """The largest difference of all scores, and the largest score."""
    asked: dict[str, Any] = {"output_scores": True, "return_dict_in_generate": True}
    (shared, _), (apart, _) = (run(PROMPTS.repeat_interleave(3, 0), **asked) for run in (model, model.apart))
    ours, theirs = torch.stack(shared.scores).cpu(), torch.stack(apart.scores).cpu()
    return {"off": (ours - theirs).abs().max().item(), "largest": theirs.abs().max().item()}


def work(model: Model) -> dict[str, list[int]]:
    """FLOPs and peak bytes of one row, and of eight with its prompt, shared and apart, up to the first new token."""
    prompt = PROMPTS[1:2].repeat(1, 64)
    found = {}
    runs = {"one": (model, 1), "shared": (model, 8), "apart": (model.apart, 8)}
    for name, (run, rows) in runs.items():
        with Meter() as meter:
            run(prompt.repeat(rows, 1), max_new_tokens=1)
        usage = meter.usage()
        found[name] = [usage.flops, usage.peak_bytes]
    return found


def adapter_of_each_row() -> list[Any]:
    """Rows of the first forward of four with one prompt and two adapters in turn, and the tokens that each row gets."""
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = Model()
    peft = get_peft_model(model.model, config, adapter_name="one")
    peft.add_adapter("two", config)
    rows = PROMPTS[1:2].repeat(4, 1).to("mps")
    asked = {"attention_mask": torch.ones_like(rows), "max_new_tokens": 6, "do_sample": False}
    tokens = peft.eval().generate(input_ids=rows, adapter_names=["one", "two"] * 2, **asked)
    return [model.rows[0], tokens.tolist()]


def not_shared(model: Model) -> dict[str, int]:
    """Rows of the first forward of three with one prompt, where sharing would not be right or is not understood."""
    rows = PROMPTS[:1].repeat(3, 1)
    filled = DynamicCache(config=model.model.config)
    model.model(rows[:, :4].to("mps"), past_key_values=filled, use_cache=True)
    mask = torch.ones_like(rows)
    mask[1, :4] = 0
    found = {
        "the CPU": Model("cpu")(rows)[1],
        "a static cache": model(rows, cache_implementation="static")[1],
        "hidden states": model(rows, output_hidden_states=True, return_dict_in_generate=True)[1],
        "no cache": model(rows, use_cache=False)[1],
        "in pieces": model(rows, prefill_chunk_size=4)[1],
        "a filled cache": model(rows, past_key_values=filled)[1],
        "another mask": model(rows, attention_mask=mask.to("mps"))[1],
        "prompts that differ": model(PROMPTS)[1],
        "numbers that differ": model(rows, number=torch.arange(3, device="mps"))[1],
        "equal numbers": model(rows, number=torch.ones(3, device="mps"))[1],
    }
    layer = model.model.model.layers[0]
    hook = layer.register_forward_hook(lambda *_: None)
    found["a hook of the script"] = model(rows)[1]
    hook.remove()
    model.model.enable_input_require_grads()
    found["a hook of transformers"] = model(rows)[1]
    model.model.disable_input_require_grads()
    embedding = model.model.get_input_embeddings()
    attention = layer.self_attn
    model.model.train()
    embedding.neftune_noise_alpha = 5.0
    found["noise"] = model(rows)[1]
    del embedding.neftune_noise_alpha
    attention.attention_dropout = 0.1
    found["dropout"] = model(rows)[1]
    attention.attention_dropout = 0.0
    found["training without dropout"] = model(rows)[1]
    model.model.eval()
    return found


if __name__ == "__main__":
    model = Model()
    found = {"ways": ways(model), "scores": scores(model), "work": work(model), "rows": not_shared(model)}
    print(json.dumps({**found, "adapters": adapter_of_each_row()}))
