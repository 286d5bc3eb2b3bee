"""When generate may stop, and what it asks a model for; whole generations are in tests/e2e/test_generation.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache, GenerationMixin, Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.generation.utils import DeferredStopCheck

from patcher.replacements.transformers import generation

MPS = torch.device("mps")


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Any:
    function = DeferredStopCheck.is_supported
    monkeypatch.setattr(generation, "original", lambda target: function)
    return function


def test_a_tuple_of_keys_and_values_decides_at_once(upstream: Any) -> None:
    """Unsloth's fast decoding returns one; upstream asks it whether it can be cropped, which fails."""
    cache = ((torch.zeros(1), torch.zeros(1)),)
    with pytest.raises(AttributeError):
        upstream(MPS, cache, True, False)
    assert generation.is_supported(MPS, cache, True, False) is False


@pytest.mark.parametrize("device", ["mps", "cpu"])
@pytest.mark.parametrize("returned", [True, False])
@pytest.mark.parametrize("assistant", [True, False])
def test_for_caches_of_transformers_the_answer_is_upstreams(
    upstream: Any, device: str, returned: bool, assistant: bool
) -> None:
    for cache in (None, DynamicCache()):
        given = (torch.device(device), cache, returned, assistant)
        assert generation.is_supported(*given) == upstream(*given)


@pytest.fixture(scope="module")
def mixture() -> Qwen3MoeForCausalLM:
    """A mixture of four experts as TRL leaves it: its configuration asks for the logits of routers."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "moe_intermediate_size": 16, "head_dim": 8}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "output_router_logits": True, "initializer_range": 0.2}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, **layers, **experts, **tokens)).eval()


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_mixture_of_experts_generates_after_its_training(
    cache: str, mixture: Qwen3MoeForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows, one padded: the tokens are those of a model that was not trained, and trained it may be again."""
    rows = torch.arange(3, 19).view(2, 8)
    mask = torch.ones_like(rows)
    mask[1, :3] = 0

    def tokens() -> list[list[int]]:
        settings: Any = {"max_new_tokens": 4, "do_sample": False, "cache_implementation": cache}
        found: list[list[int]] = mixture.generate(rows, attention_mask=mask, **settings)[:, 8:].tolist()
        return found

    with pytest.raises(RuntimeError, match="The size of tensor a"):
        tokens()
    mixture.config.output_router_logits = False
    expected = tokens()
    mixture.config.output_router_logits = True
    function = GenerationMixin.prepare_inputs_for_generation
    monkeypatch.setattr(generation, "original", lambda target: function)
    monkeypatch.setattr(GenerationMixin, "prepare_inputs_for_generation", generation.prepare_inputs_for_generation)
    assert tokens() == expected and len({*expected[0], *expected[1]}) > 1
    assert mixture(rows, attention_mask=mask, labels=rows).aux_loss > 0
