"""Log-probability and entropy as Metal shaders."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from patcher.ops.metal import log_prob_entropy
from tests.ops.metal.variant import assert_right, found_of

pytestmark = pytest.mark.slow

FAULTS = {
    "exp, a little": (("precise::exp(z[k] - shift)", "1.0001f * precise::exp(z[k] - shift)"), torch.float32),
    "a sum that does not shrink": (("weighted *= less", "weighted *= 1.0f"), torch.float16),
    "masked rows": (("counted ? X(grad / temperature) : X(0.0f)", "X(grad / temperature)"), torch.bfloat16),
    "no temperature": (("X(grad / temperature)", "X(grad)"), torch.float16),
    "samples side by side": (("row / count * rows.sample", "row / count * count * rows.stride"), torch.float32),
    "the next token": (("uint(index[row])", "uint(index[row] + 1)"), torch.float32),
    "the entropy's gradient": (("(expecteds[row] - z)", "(expecteds[row] - 1.001f * z)"), torch.float32),
}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return found_of(log_prob_entropy)


def test_it_is_right_and_faults_are_noticed(found: dict[str, Any]) -> None:
    """Beside the torch variant, which other tests hold against fp64 and TRL's kernels."""
    assert_right(found)


def test_logits_are_read_once(found: dict[str, Any]) -> None:
    """Forward and backward, but for the token's; the gradient is written once."""
    assert max(found["touched"][name] for name in ("forward 0", "backward 2", "backward 7")) <= 1 + 1 / 33
