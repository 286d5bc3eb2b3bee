"""When weights are read."""

from __future__ import annotations

import pytest
import torch

from patcher.replacements.transformers import core_model_loading as loading


def test_a_tensor_for_mps_is_read_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread converts on mps; tensors for other devices keep their threads."""
    monkeypatch.setattr(loading, "original", lambda target: lambda pool, *_: pool)
    assert loading.spawn_materialize("pool", "tensor", torch.device("mps"), torch.float32) is None
    assert loading.spawn_materialize("pool", "tensor", "mps:0") is None
    assert loading.spawn_materialize("pool", "tensor", "cpu", torch.float32) == "pool"
