"""A tile of logits in a softmax as Metal shaders."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from patcher.ops.metal import softmax_tile
from tests.ops.metal.variant import assert_right, found_of

pytestmark = pytest.mark.slow

FAULTS = {
    "an exponential, a little": (("precise::exp(z - all)", "1.0001f * precise::exp(z - all)"), torch.float32),
    "the label is counted": (("is_label ? 0.0f : precise::exp", "precise::exp"), torch.float32),
    "the label is a maximum": (("is_label ? top : max", "max"), torch.float16),
    "sums are not rescaled": (("total[row] * shrunk +", "total[row] +"), torch.float32),
    "the maximum is forgotten": (("max(maximum[row], group_max", "max(NOTHING, group_max"), torch.float32),
    "squares are rescaled once": (("* shrunk * shrunk +", "* shrunk +"), torch.bfloat16),
    "no slope in weights": (("X(exp * held[k].y)", "X(exp)"), torch.bfloat16),
    "no slope in gradients": (("* z.y * how.factor", "* how.factor"), torch.float16),
    "no bias": (("tile.has_bias ? float(bias[i])", "tile.has_bias > 1 ? float(bias[i])"), torch.float32),
    "smoothing is left out": (("of_log_p * log_p) - c", "of_log_p * log_p)"), torch.float32),
    "the next row's label": (("places[row] - long(row) *", "places[row] - long(row + 1) *"), torch.float32),
}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return found_of(softmax_tile)


def test_it_is_right_and_faults_are_noticed(found: dict[str, Any]) -> None:
    """Beside the torch variant, which other tests hold against fp64."""
    assert_right(found)


def test_each_number_is_touched_once(found: dict[str, Any]) -> None:
    """Read once and written once; rows that are wider than a threadgroup holds are read twice."""
    assert {name: times for name, times in found["touched"].items() if times > 1 + name.endswith("wide")} == {}
    assert len(found["touched"]) == 4
