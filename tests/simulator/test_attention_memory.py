"""Attention's memory, to the last byte: it grows with the length, forward and backward, in torch and as shaders."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from patcher.ops import attention as op
from patcher.ops import blocked_attention
from patcher.ops.attention import Pattern, attention, attention_varlen
from patcher.ops.metal import attention as shaders
from patcher.simulator.meter import Meter

pytestmark = pytest.mark.slow

CAUSAL = Pattern(0.1, causal=True)
Run = Callable[[Tensor, Tensor, Tensor], Tensor]


def _packed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    starts = torch.arange(0, q.shape[2] + 1, q.shape[2] // 4, dtype=torch.int32, device="mps")
    longest = q.shape[2] // 4
    rows = (x.squeeze(0).transpose(0, 1) for x in (q, k, v))
    return attention_varlen(*rows, starts, starts, longest, longest, CAUSAL).transpose(0, 1).unsqueeze(0)


RUNS: dict[str, Run] = {
    "causal": lambda q, k, v: attention(q, k, v, CAUSAL),
    "packed": _packed,
    "window": lambda q, k, v: attention(q, k, v, Pattern(0.1, causal=True, window=(q.shape[2] // 4, None))),
    "soft cap": lambda q, k, v: attention(q, k, v, Pattern(0.1, causal=True, softcap=30.0)),
}


def _peak(run: Run, length: int, heads: int, kv_heads: int, head: int) -> int:
    """Bytes at the peak of a forward and backward in bf16, beyond inputs and the gradient of the output."""
    shapes = ((1, length, heads, head), (1, length, kv_heads, head), (1, length, kv_heads, head))
    q, k, v = (torch.ones(s, device="mps", dtype=torch.bfloat16).transpose(1, 2).requires_grad_() for s in shapes)
    grad = torch.ones(shapes[0], device="mps", dtype=torch.bfloat16).transpose(1, 2)
    gc.collect()
    before = torch.mps.current_allocated_memory()
    with Meter(modules=False) as meter:
        torch.autograd.grad(run(q, k, v), (q, k, v), grad)
    return meter.usage().peak_bytes - before


@pytest.mark.parametrize("name", RUNS)
def test_it_grows_with_the_length(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What remains, 2 bytes each of the output and three gradients, 8 of every query; twice a block of scores; keys,
    values and their gradients in fp32; and queries of a block. Scores of all would take 64 MiB at 2048."""
    elements, heads, kv_heads, head = 1 << 16, 4, 2, 16
    monkeypatch.setattr(blocked_attention, "ELEMENTS", elements)
    for length in (512, 1024, 2048):
        remains = length * (2 * head * 2 * (heads + kv_heads) + 8 * heads)
        block = 2 * 4 * elements + 4 * 4 * length * 2 * kv_heads * head // 2
        assert _peak(RUNS[name], length, heads, kv_heads, head) < remains + 1.5 * block, length


@pytest.mark.parametrize("name", RUNS)
def test_the_goal_for_a_model_of_8_billion(name: str) -> None:
    """32 heads and 8 for keys, 128 wide, 1024 tokens in bf16: 0.05 GiB, of which 28 MiB are output and gradients."""
    assert _peak(RUNS[name], 1024, 32, 8, 128) < 0.05 * 2**30


@pytest.mark.parametrize("name", RUNS)
def test_shaders_take_what_remains_and_three_numbers_of_a_query(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(op.VARIANT, torch.bfloat16, shaders)
    remains = 64 * (2 * 16 * 2 * (4 + 2) + 12 * 4)
    assert _peak(RUNS[name], 64, 4, 2, 16) <= remains + 1024


def test_shaders_are_three_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(op.VARIANT, torch.float32, shaders)
    q = torch.ones(1, 2, 40, 16, device="mps", requires_grad=True)
    with Meter(modules=False) as meter:
        out = attention(q, q, q, CAUSAL)
        (grad,) = torch.autograd.grad(out, q, torch.ones_like(out))
    assert {name: counts.dispatches for name, counts in meter.usage().by_op.items()} == {
        "metal::attention_forward": 1,
        "metal::attention_dq": 1,
        "metal::attention_dkv": 1,
        "aten::fill_.Scalar": 1,
        "aten::add.Tensor": 1,  # one tensor is query, key and value
        "aten::add_.Tensor": 1,
    }
    assert grad.shape == q.shape
