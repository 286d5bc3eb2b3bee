"""Attention as Metal shaders against its formula in fp64, on generated cases, in two schedules and checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patcher.ops import attention as op
from patcher.ops.attention import Pattern, attention, attention_varlen
from patcher.ops.metal import attention as shaders
from patcher.ops.metal.library import library
from patcher.simulator.metal import compile_shader
from tests.ops.attention import exact_attention, exact_packed, kept
from tests.ops.attention_bounds import bounds

pytestmark = pytest.mark.slow

SCHEDULES: dict[str, dict[str, bool]] = {"forwards": {}, "backwards": {"backwards": True}, "checked": {"check": True}}
EXAMPLES = {"forwards": 40, "backwards": 15, "checked": 4}
KINDS: list[dict[str, Any]] = [
    {},
    {"softcap": 2.0, "sinks": True},
    {"dropout_p": 0.3, "bias": "mask"},
    {"bias": "added", "softcap": 1.5, "dropout_p": 0.2, "sinks": True},
]
"""Each is a library of its own."""

SIDES = st.none() | st.integers(0, 40)
LENGTHS = st.integers(1, 75)


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Shaders are compiled for one way to run them, and are what runs."""
    options = SCHEDULES[request.param]
    monkeypatch.setattr(torch.mps, "compile_shader", lambda source: compile_shader(source, **options))
    for dtype in (torch.float32, torch.float16):
        monkeypatch.setitem(op.VARIANT, dtype, shaders)
    library.cache_clear()
    yield request.param
    library.cache_clear()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(kind) or "plain")
def test_a_batch(schedule: str, kind: dict[str, Any]) -> None:
    """Output and gradients; lengths below and above a threadgroup's rows, strides as models have them."""

    @settings(max_examples=EXAMPLES[schedule], deadline=None, database=None, derandomize=True)
    @given(
        queries=LENGTHS,
        keys=LENGTHS,
        groups=st.integers(1, 3),
        causal=st.booleans(),
        window=st.tuples(SIDES, SIDES),
        seed=st.integers(0, 2**64 - 1),
        transposed=st.booleans(),
    )
    def compared(queries: int, keys: int, groups: int, causal: bool, window: Any, seed: int, transposed: bool) -> None:
        generator = torch.Generator().manual_seed(seed >> 1)

        def states(heads: int, length: int, width: int) -> Tensor:
            shape = (2, length, heads, width) if transposed else (2, heads, length, width)
            x = torch.randn(*shape, generator=generator).double()
            return x.transpose(1, 2) if transposed else x

        bias = torch.randn(1, 2 * groups, queries, keys, generator=generator).double()
        bias = {"mask": bias > -1, "added": bias}.get(kind.get("bias", ""))
        sinks = torch.randn(2 * groups, generator=generator).double() if kind.get("sinks") else None
        wide = [states(2 * groups, queries, 8), states(2, keys, 8), states(2, keys, 16)]
        grad = states(2 * groups, queries, 16)
        learned = [x.requires_grad_() for x in (*wide, *([sinks] if sinks is not None else []))]
        pattern = Pattern(0.3, causal, window, kind.get("softcap"), kind.get("dropout_p", 0.0), seed)
        exact_out = exact_attention(*wide, pattern, bias=bias, sinks=sinks)
        names = ("out", "query", "key", "value", "sinks")
        exact = dict(zip(names, (exact_out, *torch.autograd.grad(exact_out, learned, grad)), strict=False))

        def on_mps(x: Tensor) -> Tensor:
            return x.detach().to(torch.bool if x.dtype == torch.bool else torch.float32).to("mps")

        ours = [on_mps(x).requires_grad_() for x in learned]
        more = {"bias": None if bias is None else on_mps(bias), "sinks": ours[3] if sinks is not None else None}
        out = attention(*ours[:3], pattern, **more)
        found = dict(zip(names, (out, *torch.autograd.grad(out, ours, on_mps(grad))), strict=False))
        exact = {name: x.detach() for name, x in exact.items()}
        detached = [x.detach() for x in (*wide, grad)]
        given = {"bias": bias, "sinks": None if sinks is None else sinks.detach()}
        allowed = bounds(*detached, pattern, exact, torch.float32, **given)
        for name, x in exact.items():
            off = (found[name].cpu().double() - x).abs() / allowed[name]
            assert not off.isnan().any() and off.max() <= 1, f"{name} is off by {off.max():.3g} times what may be"

    compared()


@pytest.mark.parametrize("alike", [True, False])
def test_packed_rows(schedule: str, alike: bool) -> None:
    """As row by row, to 64 eps of the largest number; rows may be empty, and something lies behind the last one."""

    @settings(max_examples=EXAMPLES[schedule], deadline=None, database=None, derandomize=True)
    @given(
        rows=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=4),
        causal=st.booleans(),
        window=st.tuples(SIDES, SIDES),
        behind=st.sampled_from([0, 3, 40]),
        seed=st.integers(0, 2**32),
    )
    def compared(rows: list[tuple[int, int]], causal: bool, window: Any, behind: int, seed: int) -> None:
        rows = [(a, a) if alike else (a, b) for a, b in rows]
        queries, keys = (sum(part) + behind for part in zip(*rows, strict=True))
        generator = torch.Generator().manual_seed(seed)
        shapes = ((queries, 4, 8), (keys, 2, 8), (keys, 2, 8), (4,))
        wide = [torch.randn(*s, generator=generator).double().requires_grad_() for s in shapes]
        ours = [x.detach().float().to("mps").requires_grad_() for x in wide]
        starts = [torch.tensor([0, *part]).cumsum(0).int().to("mps") for part in zip(*rows, strict=True)]
        longest = [max(part) for part in zip(*rows, strict=True)]
        pattern = Pattern(0.3, causal, window)
        starts = [starts[0], starts[0]] if alike else starts
        out = attention_varlen(*ours[:3], *starts, *longest, pattern, sinks=ours[3])
        expected = exact_packed(*wide[:3], rows, pattern, sinks=wide[3])
        grads = torch.autograd.grad(out.square().sum(), ours)
        exact = torch.autograd.grad(expected.square().sum(), wide, materialize_grads=True)
        for found, right in zip((out, *grads), (expected, *exact), strict=True):
            largest = right.abs().max().item() if right.numel() else 0.0
            torch.testing.assert_close(found.cpu().double(), right, rtol=0, atol=64 * 2**-23 * max(largest, 1))

    compared()


def test_the_mask_of_dropout_is_that_of_torch(schedule: str) -> None:
    """Values of one for one key each make the kept weights visible: of 70 x 70 the same are dropped, about 30%."""
    q = torch.zeros(1, 2, 70, 8, device="mps")
    v = torch.eye(72, device="mps")[None, None, :70].expand(1, 2, 70, 72)
    pattern = Pattern(1.0, dropout_p=0.3, seed=2**40 + 3)
    weights = attention(q, q, v, pattern)[..., :70].cpu()
    expected = kept(weights.shape, pattern) / 70
    torch.testing.assert_close(weights.double(), expected, rtol=1e-6, atol=0)
    assert abs(weights.eq(0).double().mean().item() - 0.3) < 5 * (0.3 * 0.7 / weights.numel()) ** 0.5


def test_a_window_of_any_size_hides_nothing_in_short_rows(schedule: str) -> None:
    """Sizes beyond 32 bits, which the kernels count in, stand for no window."""
    q, k, v = (torch.linspace(-1, 1, 2 * 9 * 8, device="mps").view(1, 2, 9, 8).sin() for _ in range(3))
    for side in (2**31 - 1, 2**32, 2**62):
        for window in ((side, side), (side, 0)):
            expected = attention(q, k, v, Pattern(0.3, causal=window[1] == 0))
            assert torch.equal(attention(q, k, v, Pattern(0.3, window=window)), expected)


def test_nothing_is_launched_for_an_empty_batch() -> None:
    q = torch.zeros(0, 2, 5, 8, device="mps", requires_grad=True)
    with mock.patch.dict(op.VARIANT, {torch.float32: shaders}), mock.patch.object(shaders, "_library") as compiled:
        attention(q, q, q, Pattern(0.3)).sum().backward()
    assert not compiled.called and q.grad is not None and q.grad.shape == q.shape
