"""Launches of a kind that was launched before go its way, and do what a first launch does."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from patcher.tiles import types
from patcher.tiles.warm import kind_of
from tests.process import run_module

CONSTANT = (False, False, True)
VARIABLE = frozenset(("x", "n"))


def kind(*args: Any, **kwargs: Any) -> Any:
    """Of a launch of a kernel with the parameters x, n and the constant N."""
    return kind_of(args, kwargs, CONSTANT, VARIABLE)


def test_values_are_of_one_kind_and_types_and_constants_are_not() -> None:
    """1 may become part of the program, True is no whole number, and widths differ."""
    assert kind(5.0, 7, 64) == kind(2.5, -3, 64)
    others = [
        *((5.0, 7, 64), (5.0, 7, 128), (5, 7, 64), (1, 7, 64), (True, 7, 64), (None, 7, 64), (5.0, 1 << 40, 64)),
        *((5.0, 1 << 63, 64), (5.0, 7, 1), (5.0, 7, True), (5.0, 7, 1.0), (5.0, 7, 0.0), (5.0, 7, -0.0), (5.0, 7, "1")),
        *((5.0, 7, torch.float32), (5.0, 7, types.float32), (5.0, 7, None)),
    ]
    kinds = [kind(*args) for args in others]
    assert None not in kinds
    assert len(set(kinds)) == len(others)


def test_keywords_are_of_a_kind_by_name() -> None:
    """And options of the compiler by value, as some make another shader."""
    assert kind(5.0, n=7, N=64) == kind(5.0, n=8, N=64)
    others = [
        kind(5.0, 7, 64),
        kind(5.0, n=7, N=64),
        kind(5.0, N=64, n=7),
        kind(5.0, n=7, N=64, num_warps=4),
        kind(5.0, n=7, N=64, num_warps=8),
        kind(5.0, n=64, N=7),
    ]
    assert len(set(others)) == len(others)


@pytest.mark.parametrize(
    "args",
    [
        (torch.zeros(1), 7, 64),
        ((1, 2), 7, 64),
        (5.0, 1 << 64, 64),
        (5.0, np.int64(7), 64),
        (5.0, 7, (1,)),
        (5.0, 7, [1]),
        (5.0, 7, 64, 8),
    ],
)
def test_what_has_no_kind(args: tuple[Any, ...]) -> None:
    """Other devices, tuples, numbers too large or not Python's, and one argument too many: looked at each time."""
    assert kind(*args) is None


@pytest.mark.slow
def test_on_the_simulated_mac() -> None:
    """Each launch gives what a kernel gives that was never launched; all but the first of a kind go its way."""
    found = json.loads(run_module("tests.tiles.warm_launches").stdout)
    assert found["wrong"] == []
    assert found["anew"] == found["expected anew"]
    assert found["defaults"] == [True] * 4
    assert found["with torch"] == found["switched off"] == 2
