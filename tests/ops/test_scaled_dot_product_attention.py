"""Which of torch's arguments are computed by blocks; the numbers are in tests/changes/torch/test_attention.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from patcher.ops.scaled_dot_product_attention import fits, scaled_dot_product_attention
from tests.ops.attention import tensors

FITTING: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"causal": True},
    "grouped": {"kv": (2, 2, 7, 8), "grouped": True},
    "mask of one row": {"mask": torch.ones(1, 7, dtype=torch.bool)},
    "mask in fp32": {"mask": torch.zeros(5, 7), "dtype": torch.bfloat16},
}
LEFT: dict[str, dict[str, Any]] = {
    "heads without grouping": {"kv": (2, 2, 7, 8)},
    "heads that do not divide": {"kv": (2, 3, 7, 8), "grouped": True},
    "a batch that is broadcast": {"kv": (1, 4, 7, 8)},
    "mask and causal": {"mask": torch.ones(5, 7, dtype=torch.bool), "causal": True},
    "mask of other sizes": {"mask": torch.ones(5, 6, dtype=torch.bool)},
    "mask of integers": {"mask": torch.ones(5, 7, dtype=torch.int64)},
    "mask of one dimension": {"mask": torch.ones(7, dtype=torch.bool)},
    "everything dropped": {"dropout_p": 1.0},
    "integers": {"dtype": torch.int32},
    "no key": {"kv": (2, 4, 0, 8)},
}


def asked(
    kv: tuple[int, ...] = (2, 4, 7, 8),
    mask: Tensor | None = None,
    causal: bool = False,
    grouped: bool = False,
    dropout_p: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> bool:
    query, key, value = tensors(dtype, (2, 4, 5, 8), kv, kv)
    return fits(query, key, value, mask, dropout_p, causal, grouped)


@pytest.mark.parametrize("given", FITTING.values(), ids=FITTING.keys())
def test_what_fits(given: dict[str, Any]) -> None:
    assert asked(**given)


@pytest.mark.parametrize("given", LEFT.values(), ids=LEFT.keys())
def test_what_is_left_to_torch(given: dict[str, Any]) -> None:
    assert not asked(**given)


def test_two_or_five_dimensions_are_left_to_torch() -> None:
    for shape in ((5, 8), (1, 2, 4, 5, 8)):
        x = torch.ones(shape)
        assert not fits(x, x, x, None, 0.0, False, False)


@pytest.mark.parametrize("keys", [3, 5, 7])
def test_causality_counts_from_the_first_key(keys: int) -> None:
    """As torch's, whatever the number of keys: fp32 sums of at most 8 terms."""
    query, key, value = tensors(torch.float32, (2, 4, 5, 8), (2, 4, keys, 8), (2, 4, keys, 8))
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    found = scaled_dot_product_attention(query, key, value, None, 0.0, True, None)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
