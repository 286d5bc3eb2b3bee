"""Attention as Metal shaders."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from patcher.ops.blocked_attention import Problem
from patcher.ops.metal import attention
from patcher.ops.visible_keys import Band, Pattern
from tests.ops.metal.variant import assert_right, found_of

pytestmark = pytest.mark.slow

BARRIER = "    threadgroup_barrier(mem_flags::mem_threadgroup);\n"
FAULTS = {
    "the scale, a little": (("product * f.scale", "product * f.scale * 1.0001f"), torch.float32),
    "no barrier before a tile": ((f"{BARRIER}    load_tile", "    load_tile"), torch.float32),
    "a key too many": (("at + right + 1)", "at + right + 2)"), torch.bfloat16),
    "a query too few": (("at + left + 1)", "at + left)"), torch.float16),
    "sums are not shrunk": (("o[d].thread_elements()[1] *= shrunk", ""), torch.float32),
    "no delta": (("(grad - own_delta)", "grad"), torch.bfloat16),
    "no slope of the soft cap": (("1.0f - t * t", "1.0f"), torch.float16),
    "a sink counts twice": (("FIRST_TOTAL 1.0f", "FIRST_TOTAL 2.0f"), torch.float32),
    "another mask of dropout": (("j >> 2", "j >> 1"), torch.bfloat16),
    "heads are shared otherwise": (("head / n.groups * n.v[1]", "head % 2 * n.v[1]"), torch.float16),
    "rows begin elsewhere": (("row.first_key * n.v[2]", "row.first_query * n.v[2]"), torch.float32),
    "a bias is transposed": (("i * n.bias[2] + j * n.bias[3]", "j * n.bias[2] + i * n.bias[3]"), torch.float16),
    "what lies behind the last row is not cleared": (("behind, n.queries, group", "behind, 0, group"), torch.bfloat16),
}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return found_of(attention)


def test_it_is_right_and_faults_are_noticed(found: dict[str, Any]) -> None:
    """Beside the torch variant, which other tests hold against fp64."""
    assert_right(found)


def _problem(dtype: torch.dtype = torch.float32, head: int = 64, value: int = 64, **more: Any) -> Problem:
    tensors = [torch.zeros(1, 2, 3, size, dtype=dtype) for size in (head, head, value)]
    return Problem(*tensors, Pattern(1.0), Band(3, 3, None, None), **more)


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (_problem(), True),
        (_problem(torch.bfloat16, 256, 8, bias=torch.zeros(1, 1, 1, 1, dtype=torch.bool)), True),
        (_problem(torch.float64), False),
        (_problem(head=36), False),
        (_problem(value=264), False),
        (_problem(bias=torch.zeros(1, 1, 1, 1, dtype=torch.float64)), False),
    ],
)
def test_what_it_computes(problem: Problem, expected: bool) -> None:
    """The rest is left to torch, as is the gradient of a bias."""
    assert attention.supports(problem) == expected
    assert not attention.supports(problem, bias_needs_grad=True)
