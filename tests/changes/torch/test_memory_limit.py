"""The memory that torch may take on mps."""

from __future__ import annotations

import pytest
import torch

from patcher.engine.ledger import Ledger
from patcher.macs import fit
from patcher.replacements.torch import memory_limit


@pytest.mark.parametrize(("variable", "asked", "ratio"), [(None, None, 1.7), ("0.8", None, 0.8), ("0.8", 1.5, 1.5)])
def test_the_limit_is_the_users(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, asked: float | None, ratio: float
) -> None:
    """torch's default, the user's watermark, and set_per_process_memory_fraction, which overrides both."""
    monkeypatch.delenv("PYTORCH_MPS_HIGH_WATERMARK_RATIO", raising=False)
    if variable is not None:
        monkeypatch.setenv("PYTORCH_MPS_HIGH_WATERMARK_RATIO", variable)
    for name in ("recommended_max_memory", "current_allocated_memory"):
        monkeypatch.setattr(torch.mps, name, lambda: 100)
    monkeypatch.setattr(memory_limit, "keeps_statistics", lambda: False)
    told: list[float] = []
    monkeypatch.setattr(memory_limit, "original", lambda target: told.append)
    monkeypatch.setattr(memory_limit, "LEDGER", Ledger())
    if asked is not None:
        memory_limit.set_per_process_memory_fraction(asked)
        assert told == [asked]
    assert memory_limit.limit() == fit.Limit(ratio, 100, 100)
