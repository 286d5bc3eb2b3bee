"""attn_implementation="flash_attention_2" and kernels of the hub on mps, against eager attention on the CPU."""

from __future__ import annotations

from typing import Any

import pytest

from tests.process import answer, run_module

pytestmark = pytest.mark.slow

LOSS = 1e-6
"""Relative, in fp32: the mean over 33 tokens, through two layers whose sums are in another order, some eps each."""
GRADIENT = 1e-5
"""Relative, of all together: sums over 35 tokens and 64 channels through two layers and back, 1.2e-7 each."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("models")
    result: dict[str, Any] = answer(run_module("tests.changes.transformers.attended", folder, timeout=200))
    return result


def test_losses_and_gradients_are_those_of_eager_attention(found: dict[str, Any]) -> None:
    """Grouped heads, windows, a softcap, sinks, an encoder; padded, and the same texts packed into one row."""
    assert len(found["models"]) == 8
    for name, model in found["models"].items():
        assert model["loss"] <= LOSS and model["gradients"] <= GRADIENT, (name, model)
        assert model.get("packed", 0.0) <= LOSS, (name, model)
        assert ("packed" in model) == ("bert" not in name)


def test_the_name_stays_the_one_that_was_asked_for(found: dict[str, Any]) -> None:
    """gpt-oss alone names others that it is compatible with, on every device."""
    for name, model in found["models"].items():
        asked = name.partition(", ")[2]
        expected = "kernels-community/vllm-flash-attn3" if name.startswith("gpt_oss") else asked
        assert model["implementation"] == expected


def test_layers_do_not_wait_for_the_device(found: dict[str, Any]) -> None:
    """Where texts begin is read once for all layers."""
    two, four = found["waits"]
    assert two == four <= 2


def test_tensors_that_count_no_writes_are_read_in_each_layer(found: dict[str, Any]) -> None:
    """Those of inference mode: positions that were written to are other positions."""
    assert found["written anew"] == 0


def test_transformers_own_function_has_it_too(found: dict[str, Any]) -> None:
    """``_flash_attention_forward``, which code of models' own calls: what is real of a padded batch."""
    assert found["direct"]["padded"] <= 1e-6


def test_undo_forgets_the_names(found: dict[str, Any]) -> None:
    """And gives torch's attention back to a model that got another for rows of several texts."""
    assert found["registered"] and found["undone"]
    assert (found["switched"], found["switched back"]) == ("flash_attention_2", "sdpa")
    assert found["left"] == "transformers.integrations.flash_attention"
