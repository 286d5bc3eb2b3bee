"""What accelerate takes for an out-of-memory error; it is seen at work in tests/e2e/test_out_of_memory.py."""

from __future__ import annotations

import pytest
from accelerate.utils import memory as upstream

from patcher.replacements.accelerate import memory


@pytest.mark.parametrize(
    ("error", "smaller"),
    [
        (RuntimeError("Invalid buffer size: 16.00 GiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("a size of a tensor is wrong"), False),
        (ValueError("Invalid buffer size: 16.00 GiB"), False),
    ],
)
def test_a_tensor_too_large_for_metal_asks_for_a_smaller_batch(
    monkeypatch: pytest.MonkeyPatch, error: Exception, smaller: bool
) -> None:
    """Besides what accelerate knows; other errors stay errors."""
    function = upstream.should_reduce_batch_size
    monkeypatch.setattr(memory, "original", lambda target: function)
    assert memory.should_reduce_batch_size(error) is smaller
