"""Cross entropy as Metal shaders."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from patcher.ops.metal import cross_entropy
from tests.ops.metal.variant import assert_right, found_of

pytestmark = pytest.mark.slow

FAULTS = {
    "exp, a little": (("precise::exp(z[k] - shift)", "1.0001f * precise::exp(z[k] - shift)"), torch.float32),
    "a label that counts among the others": (("tid, threads) == label", "tid, threads) == label + 1"), torch.float32),
    "a sum that does not shrink": (("sum *= precise::exp(top - shift)", "sum *= 1.0f"), torch.float16),
    "a loss without its digits": (
        ("c10::metal::log1p(precise::exp(lead))", "precise::log(1.0f + precise::exp(lead))"),
        torch.float32,
    ),
    "ignored rows": (("label == IGNORED ? 0.0f :", "label == 5 ? 0.0f :"), torch.bfloat16),
    "a label's gradient": (
        ("c10::metal::expm1f(-losses[row])", "(precise::exp(-losses[row]) - 0.999f)"),
        torch.float32,
    ),
    "no softcap": (("dz *= 1.0f - tanh * tanh", "dz *= 1.0f"), torch.bfloat16),
    "strides of what flows": (("float(grad[row * loss.grad_stride])", "float(grad[row])"), torch.float16),
    "the largest of a simdgroup": (
        ("return simd_max(tid % 32 < threads / 32 ? partial[tid % 32] : -INFINITY)", "return value"),
        torch.float32,
    ),
}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return found_of(cross_entropy)


def test_it_is_right_and_faults_are_noticed(found: dict[str, Any]) -> None:
    """Beside the torch variant, which other tests hold against fp64 and Unsloth's kernels."""
    assert_right(found)


def test_logits_are_read_once(found: dict[str, Any]) -> None:
    """Forward and backward, but for the label's; the gradient is written once."""
    assert max(found["touched"].values()) <= 1 + 1 / 33 and len(found["touched"]) == 6
