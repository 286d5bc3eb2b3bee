"""What generating costs on the simulated Mac's meter: a decoded token, by layer, and the prompt of eight completions.

    python benchmarks/bench_generation.py                        PATCHER_FORCE=metal: ops as shaders

A bf16 Llama of SmolLM2-135M's width (576, 9 heads and 3 for keys and values, 1536 within), with a vocabulary of 2000
and LoRA of rank 16 on all seven projections, generates greedily through Unsloth. A layer is the difference of a model
of two layers and one of one. Decoding: one row after a prompt of 128 tokens. The prompt: 512 tokens, for eight rows,
up to the first new token; computed once for all rows, and as upstream does it, once for each.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

from patcher import patch_for_mac

patch_for_mac(simulate="M3 Max 36GB")

import torch  # noqa: E402
import unsloth  # noqa: E402, F401
from transformers import AutoModelForCausalLM, GenerationMixin, LlamaConfig  # noqa: E402
from unsloth import FastLanguageModel  # noqa: E402

from patcher.engine.ledger import original  # noqa: E402
from patcher.simulator.meter import Meter  # noqa: E402
from patcher.simulator.usage import Usage  # noqa: E402
from patcher.verify import text  # noqa: E402

PREFILL = "transformers.generation.utils:GenerationMixin._prefill"
TOKENS = (4, 12)
"""Lengths whose difference is decoded tokens alone."""


def model_of(layers: int) -> Any:
    """A new model with LoRA, ready to generate."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2000, hidden_size=576, intermediate_size=1536, num_hidden_layers=layers, num_attention_heads=9,
        num_key_value_heads=3, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
        text.tokenizer(["a few words"], 300).save_pretrained(folder)
        model, _ = FastLanguageModel.from_pretrained(folder, dtype=torch.bfloat16, load_in_4bit=False)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = FastLanguageModel.get_peft_model(
        model, r=16, lora_alpha=16, target_modules=targets, use_gradient_checkpointing=False
    )
    return FastLanguageModel.for_inference(model)


def generate(model: Any, rows: int, prompt: int, tokens: int) -> tuple[Usage, int]:
    """What a generation takes, and the bytes that it holds at most beyond what was held before."""
    ids = torch.randint(3, 2000, (1, prompt), generator=torch.Generator().manual_seed(1)).to("mps").expand(rows, -1)
    settings: dict[str, Any] = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
    before = torch.mps.current_allocated_memory()
    with Meter(modules=False) as meter:
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)
    usage = meter.usage()
    return usage, usage.peak_bytes - before


def mib(usage: Usage) -> float:
    return (usage.bytes_read + usage.bytes_written) / 2**20


def decoded(model: Any) -> tuple[Counter[str], float]:
    """Kernels by operator and MiB of one decoded token."""
    generate(model, 1, 128, TOKENS[0])  # what is tried once on a machine is no part of a token
    short, long = (generate(model, 1, 128, tokens)[0] for tokens in TOKENS)
    steps = TOKENS[1] - TOKENS[0]
    kernels = Counter({name: used.dispatches / steps for name, used in long.by_op.items()})
    kernels.subtract({name: used.dispatches / steps for name, used in short.by_op.items()})
    return kernels, (mib(long) - mib(short)) / steps


def prompts(model: Any) -> dict[str, str]:
    """GFLOPs, MiB moved and extra peak of a prompt of eight rows, shared and apart."""
    found, shared = {}, GenerationMixin._prefill
    for way, function in {"once": shared, "for each row": original(PREFILL)}.items():
        GenerationMixin._prefill = function
        usage, peak = generate(model, 8, 512, 1)
        found[way] = f"{usage.flops / 1e9:.1f} GFLOP, {mib(usage):.0f} MiB moved, {peak / 2**20:.1f} MiB extra peak"
    GenerationMixin._prefill = shared
    return found


def main() -> None:
    """Prints the figures of a layer and of the rest."""
    one, two = model_of(1), model_of(2)
    (kernels, moved), (kernels_of_two, moved_by_two) = decoded(one), decoded(two)
    layer = Counter(kernels_of_two)
    layer.subtract(kernels)
    rest = Counter(kernels)
    rest.subtract(layer)
    print(f"\na decoded token: {layer.total():.1f} kernels and {moved_by_two - moved:.2f} MiB for each layer, ", end="")
    print(f"{rest.total():.1f} and {2 * moved - moved_by_two:.2f} for the rest")
    print("a layer's:", ", ".join(f"{name} {count:.1f}" for name, count in layer.most_common() if count > 0))
    weights = sum(p.numel() * p.element_size() for p in two.model.model.layers[0].parameters())
    print(f"a layer's weights, as they are kept: {weights / 2**20:.2f} MiB")
    for way, figures in prompts(two).items():
        print(f"the prompt of two layers, computed {way}: {figures}")


if __name__ == "__main__":
    main()
