"""What each optimizer's name means on mps, and that what stands in for another trains the same weights."""

from __future__ import annotations

from typing import Any

import pytest
from transformers.training_args import OptimizerNames

from patcher.training import optimizer_names


def test_every_optimizer_name_has_one_verdict() -> None:
    """A name that transformers adds is noticed: each of its optimizers is kept, replaced or refused, none twice."""
    tables = [set(optimizer_names.KEPT), set(optimizer_names.REPLACED), set(optimizer_names.REFUSED)]
    removed_by_transformers_5 = {"adamw_apex_fused"}
    assert set().union(*tables) - removed_by_transformers_5 == {name.value for name in OptimizerNames}
    assert sum(len(table) for table in tables) == len(set().union(*tables))


def test_what_stands_in_for_an_optimizer_is_kept_itself() -> None:
    """No replacement leads to an optimizer that mps lacks."""
    stand_ins = (*optimizer_names.REPLACED.values(), *optimizer_names.REFUSED.values())
    assert {nearest.name for nearest in stand_ins} <= set(optimizer_names.KEPT)


@pytest.mark.parametrize("name", sorted(optimizer_names.REPLACED))
def test_replacement_is_the_same_algorithm(name: str) -> None:
    """AdamW stays AdamW and Lion stays Lion: another algorithm would need another learning rate."""
    family = next(word for word in ("galore", "ademamix", "lion", "rmsprop", "adamw") if word in name)
    assert family in optimizer_names.REPLACED[name].name
    assert name.endswith("layerwise") == optimizer_names.REPLACED[name].name.endswith("layerwise")


def _train(optimizer_class: Any, **options: Any) -> Any:
    import torch

    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(8, 16, generator=generator))
    optimizer = optimizer_class([weight], lr=1e-2, **options)
    for _ in range(5):
        weight.grad = torch.randn(8, 16, generator=generator)
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize(
    ("theirs", "ours", "options"),
    [("RMSprop", "RMSprop", {}), ("AdamW", "AdamW", {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01})],
)
def test_torch_optimizer_equals_the_bitsandbytes_one(theirs: str, ours: str, options: dict[str, Any]) -> None:
    """rmsprop_bnb and paged_adamw_32bit train the same weights as the torch optimizers that stand in for them."""
    import bitsandbytes
    import torch

    expected = _train(getattr(bitsandbytes.optim, theirs), optim_bits=32, **options)
    found = _train(getattr(torch.optim, ours), **options)
    # fp32 rounding of five steps of size 1e-2 on values up to 3: a few times 2**-22
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
