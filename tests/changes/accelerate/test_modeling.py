"""What accelerate divides between devices."""

from __future__ import annotations

from typing import Any

import pytest

from patcher.macs import fit
from patcher.replacements.accelerate import modeling as accelerate_modeling


def test_accelerate_divides_what_torch_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """infer_auto_device_map and its kin: torch's limit for mps where nothing is said, else the script's budgets."""
    asked: list[Any] = []
    found = {"mps": 10**12, "disk": 5}
    monkeypatch.setattr(
        accelerate_modeling, "original", lambda target: lambda *given: asked.append(given) or dict(found)
    )
    monkeypatch.setattr(accelerate_modeling, "limit", lambda: fit.Limit(ratio=0.5, recommended=100, taken=10))
    assert accelerate_modeling.get_max_memory() == {"mps": 40, "disk": 5}
    monkeypatch.setattr(accelerate_modeling, "limit", lambda: fit.Limit(ratio=0, recommended=100, taken=10))
    assert accelerate_modeling.get_max_memory() == found
    accelerate_modeling.get_max_memory({0: "1KB", "cpu": 7})
    given = {"mps": "1KB"}
    accelerate_modeling.get_max_memory(given)
    assert asked == [(), (), ({"mps": 1000, "cpu": 7},), (given,)] and asked[-1][0] is given
