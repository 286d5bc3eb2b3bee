"""What torch expects of a case on a Mac: it passes, it fails (and which list says so), or it is not run."""

from __future__ import annotations

import unittest
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

PASSES, FAILS, SKIPPED = "passes", "fails", "skipped"
DECORATOR = "decorator"
"""Who says so: the decorators in the entry of torch's database itself."""


@dataclass(frozen=True)
class Expectation:
    """What torch's test of a case ends with on a Mac.

    Attributes:
        verdict: ``"passes"``, ``"fails"`` or ``"skipped"``.
        source: where that is said: the name of a list in common_mps.py, ``"decorator"`` for one in the entry itself, or
            empty for what passes.
        allowed: absolute and relative difference that torch allows a test that passes, beyond
            `torch.testing.assert_close`'s defaults.
    """

    verdict: str
    source: str = ""
    allowed: tuple[float, float] = (0.0, 0.0)


class _Probe(unittest.TestCase):
    """Stands for torch's test: some decorators look at the test's device when it runs."""

    device_type = "mps"
    device = "mps:0"
    precision, rel_tol = 0.0, 0.0

    def runTest(self) -> None:  # unittest wants one
        raise NotImplementedError


def applied(decorators: Iterable[Any], **given: Any) -> Expectation:
    """Applies the decorators to a test that passes, and looks at what becomes of it.

    Args:
        decorators: of torch's test of a case.
        given: its arguments besides the device.
    """
    decorators = list(decorators)
    decorated = _decorated(decorators)
    if getattr(decorated, "__unittest_skip__", False):
        return Expectation(SKIPPED, DECORATOR)
    if getattr(decorated, "__unittest_expecting_failure__", False):
        return Expectation(FAILS, DECORATOR)
    try:
        decorated(_Probe(), device="mps:0", **given)
    except unittest.SkipTest:
        return Expectation(SKIPPED, DECORATOR)
    except AssertionError:  # expectedFailure("mps"): it wants a failure, and the test passed
        return Expectation(FAILS, DECORATOR)
    dtype = given.get("dtype")
    return Expectation(PASSES, allowed=tolerance(decorators, dtype) if dtype else (0.0, 0.0))


def tolerance(decorators: Iterable[Any], dtype: torch.dtype) -> tuple[float, float]:
    """Absolute and relative: what torch allows its test of a case beyond `torch.testing.assert_close`'s defaults."""
    overrides = getattr(_decorated(decorators), "tolerance_overrides", {})
    found = overrides.get(dtype, (0.0, 0.0))
    return float(found[0]), float(found[1])


def _decorated(decorators: Iterable[Any]) -> Any:
    def test(*_: Any, **__: Any) -> None:
        return None

    decorated: Any = test
    for decorator in decorators:
        decorated = decorator(decorated)
    return decorated
