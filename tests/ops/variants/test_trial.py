"""How a variant is tried, on the CPU in the place of mps."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from patcher.ops.variants import trial
from patcher.ops.variants.trial import Sample, strided, wrong


def _both(ops: Any, t: trial.Tensors) -> dict[str, Tensor]:
    return {"sum": ops.add(t["x"], t["y"]), "product": ops.multiply(t["x"], t["y"])}


def _samples(dtype: torch.dtype) -> Iterator[Sample]:
    for rows in (1, 3):
        x, y = (strided(torch.randn(rows, 5).to(dtype)) for _ in range(2))
        yield Sample(f"{rows} rows", {"x": x, "y": y}, _both, length=1)


TORCH = SimpleNamespace(add=torch.add, multiply=torch.multiply)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        (TORCH, ""),
        (SimpleNamespace(add=torch.add, multiply=lambda x, y: x * y * 1.001), "product of 1 rows: "),
        (SimpleNamespace(add=lambda x, y: x + y[0], multiply=torch.multiply), "sum of 3 rows: "),
    ],
)
def test_what_differs_is_named(variant: Any, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first result of the first sample."""
    monkeypatch.setattr(trial, "functions", lambda name, op: TORCH if name == "torch" else variant)
    monkeypatch.setattr(trial, "_samples", lambda op: SimpleNamespace(checked=_samples))
    monkeypatch.setattr(trial, "on_mps", dict)
    found = wrong("metal", "sums", torch.float32)
    assert found.startswith(expected) and bool(found) == bool(expected)


def test_rows_lie_apart_and_are_not_aligned() -> None:
    """What lies between them goes to the device with them."""
    x = torch.randn(3, 4)
    apart = strided(x)
    assert torch.equal(apart, x) and apart.stride() == (7, 1) and apart.storage_offset() == 1
    moved = trial._moved(apart, "cpu")
    assert torch.equal(moved, x) and moved.stride() == (7, 1) and moved.storage_offset() == 1
    assert int(apart.as_strided((22,), (1,), 0).eq(trial.BESIDE).sum()) == 10


@pytest.mark.parametrize("variant", ["torch", "metal"])
def test_functions_of_a_variant(variant: str) -> None:
    """Under the same names."""
    assert callable(trial.functions(variant, "rms_norm").rms_norm_backward)
