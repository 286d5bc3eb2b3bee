"""Attention against its formula in fp64, on generated cases: each number within `tests.ops.attention_bounds`."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patcher.ops import blocked_attention
from patcher.ops.attention import Pattern, attention, attention_varlen
from tests.ops.attention import exact_attention, exact_packed
from tests.ops.attention_bounds import bounds

pytestmark = pytest.mark.slow

WINDOWS = st.none() | st.integers(0, 12)
PATTERNS = st.builds(
    Pattern,
    scale=st.sampled_from([0.1, 0.35, 1.0]),
    causal=st.booleans(),
    window=st.tuples(WINDOWS, WINDOWS),
    softcap=st.sampled_from([None, 1.5, 20.0]),
    dropout_p=st.sampled_from([0.0, 0.0, 0.3]),
    seed=st.integers(0, 2**64 - 1),
)
DTYPES = st.sampled_from([torch.float32, torch.float32, torch.float16, torch.bfloat16])
BLOCKS = st.sampled_from([8, 120, 1000, 1 << 21])
"""Scores to a block."""


@st.composite
def problems(draw: Any) -> dict[str, Any]:
    """Tensors of a batch in fp64, rounded to the dtype; heads grouped or not, strides as models have them or not."""
    batch, kv_heads, groups = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.sampled_from([1, 2, 3]))
    queries, keys = draw(st.integers(1, 18)), draw(st.integers(1, 18))
    head, width, heads = draw(st.integers(1, 9)), draw(st.integers(1, 9)), kv_heads * groups
    dtype, generator = draw(DTYPES), torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    transposed = draw(st.booleans())

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype).double()

    def states(heads: int, length: int, width: int) -> Tensor:
        return (
            numbers(batch, length, heads, width).transpose(1, 2) if transposed else numbers(batch, heads, length, width)
        )

    bias = None
    shape = [size if draw(st.booleans()) else 1 for size in (batch, heads, queries, keys)]
    kind = draw(st.sampled_from(["none", "added", "mask"]))
    if kind != "none":
        bias = numbers(*shape)
        bias = bias > -0.5 if kind == "mask" else bias.masked_fill(bias < -1.5, -torch.inf)
    return {
        "tensors": [states(heads, queries, head), states(kv_heads, keys, head), states(kv_heads, keys, width)],
        "grad": states(heads, queries, width),
        "bias": bias,
        "sinks": numbers(heads) if draw(st.booleans()) else None,
        "dtype": dtype,
    }


@settings(max_examples=1500, deadline=None, database=None, derandomize=True)
@given(problems(), PATTERNS, BLOCKS)
def test_a_batch(problem: dict[str, Any], pattern: Pattern, elements: int) -> None:
    """Output and every gradient, whatever the size of blocks."""
    bias, sinks, dtype = problem["bias"], problem["sinks"], problem["dtype"]
    names = ["query", "key", "value", "bias", "sinks"]
    wide = dict(zip(names, [*problem["tensors"], bias, sinks], strict=True))
    learned = [name for name in names if wide[name] is not None and wide[name].is_floating_point()]
    wide = {name: x.requires_grad_() if name in learned else x for name, x in wide.items()}
    exact = {"out": exact_attention(*(wide[n] for n in names[:3]), pattern, bias=wide["bias"], sinks=wide["sinks"])}
    grads = torch.autograd.grad(exact["out"], [wide[name] for name in learned], problem["grad"])
    exact |= dict(zip(learned, grads, strict=True))

    narrow = {
        name: x if x is None or name not in learned else x.detach().to(dtype).requires_grad_()
        for name, x in wide.items()
    }
    with mock.patch.object(blocked_attention, "ELEMENTS", elements):
        out = attention(*(narrow[n] for n in names[:3]), pattern, bias=narrow["bias"], sinks=narrow["sinks"])
        grads = torch.autograd.grad(out, [narrow[name] for name in learned], problem["grad"].to(dtype))
    found = {"out": out, **dict(zip(learned, grads, strict=True))}
    exact = {name: x.detach() for name, x in exact.items()}
    detached = [x.detach() for x in problem["tensors"]]
    given = {name: None if x is None else x.detach() for name, x in (("bias", bias), ("sinks", sinks))}
    assert_within(found, exact, bounds(*detached, problem["grad"], pattern, exact, dtype, **given))


def assert_within(found: dict[str, Tensor], exact: dict[str, Tensor], allowed: dict[str, Tensor]) -> None:
    for name, x in exact.items():
        off = (found[name].double() - x).abs() / allowed[name]
        assert not off.isnan().any() and off.max() <= 1, f"{name} is off by {off.max():.3g} times what may be"


LENGTHS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=5)


@settings(max_examples=600, deadline=None, database=None, derandomize=True)
@given(LENGTHS, PATTERNS, BLOCKS, st.booleans(), st.booleans(), st.integers(0, 3), st.integers(0, 2**32))
def test_packed_rows(
    rows: list[tuple[int, int]], pattern: Pattern, elements: int, alike: bool, sinking: bool, behind: int, seed: int
) -> None:
    """In fp64 as row by row, to 1e-9; queries and keys packed alike or not, and something behind the last row."""
    pattern = Pattern(pattern.scale, pattern.causal, pattern.window, pattern.softcap)
    rows = [(a, a) if alike else (a, b) for a, b in rows]
    queries, keys = (sum(part) + behind for part in zip(*rows, strict=True))
    generator = torch.Generator().manual_seed(seed)
    shapes = ((queries, 4, 5), (keys, 2, 5), (keys, 2, 3), (4,))
    leaves = [torch.randn(*s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
    sinks = leaves[3] if sinking else None
    starts = [torch.tensor([0, *part]).cumsum(0).int() for part in zip(*rows, strict=True)]
    starts = [starts[0], starts[0]] if alike else starts
    longest = [max(part) for part in zip(*rows, strict=True)]
    with mock.patch.object(blocked_attention, "ELEMENTS", elements):
        out = attention_varlen(*leaves[:3], *starts, *longest, pattern, sinks=sinks)
        found = torch.autograd.grad(out.square().sum(), leaves, allow_unused=True)
    expected = exact_packed(*leaves[:3], rows, pattern, sinks=sinks)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    for ours, exact in zip(found, torch.autograd.grad(expected.square().sum(), leaves, allow_unused=True), strict=True):
        assert (ours is None) == (exact is None)
        if exact is not None:
            torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-9)
