"""When generate may decide one step late whether to stop; whole generations are in tests/e2e/test_generation.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache
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
