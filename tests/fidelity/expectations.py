"""What torch expects of a case on a Mac: it passes, it fails (and which list says so), or it is not run."""

from __future__ import annotations

import unittest
from dataclasses import dataclass
from typing import Any

import torch

from tests.fidelity.database import FORWARD, Case, Database

PASSES, FAILS, SKIPPED = "passes", "fails", "skipped"


@dataclass(frozen=True)
class Expectation:
    """What torch's test of a case ends with on a Mac.

    Attributes:
        verdict: ``"passes"``, ``"fails"`` or ``"skipped"``.
        source: where that is said: the name of a list in common_mps.py, ``"decorator"`` for one in the operator's own
            entry, or empty for what passes.
    """

    verdict: str
    source: str = ""


class _Probe(unittest.TestCase):
    """Stands for torch's test: some decorators look at the test's device when it runs."""

    device_type = "mps"
    device = "mps:0"
    precision, rel_tol = 0.0, 0.0

    def runTest(self) -> None:  # unittest wants one
        raise NotImplementedError


def expectation(database: Database, case: Case) -> Expectation:
    """Applies the decorators to a test that passes, and looks at what becomes of it."""

    decorated = _decorated(database, case)
    if getattr(decorated, "__unittest_skip__", False):
        return Expectation(SKIPPED, _list_naming(database, case))
    if getattr(decorated, "__unittest_expecting_failure__", False):
        return Expectation(FAILS, _list_naming(database, case))
    try:
        decorated(_Probe(), device="mps:0", dtype=getattr(torch, case.dtype), op=database.ops[case.op])
    except unittest.SkipTest:
        return Expectation(SKIPPED, "decorator")
    except AssertionError:  # expectedFailure("mps"): it wants a failure, and the test passed
        return Expectation(FAILS, "decorator")
    return Expectation(PASSES)


def tolerance(database: Database, case: Case) -> tuple[float, float]:
    """Absolute and relative: what torch allows its test of the case beyond `torch.testing.assert_close`'s defaults."""
    overrides = getattr(_decorated(database, case), "tolerance_overrides", {})
    found = overrides.get(getattr(torch, case.dtype), (0.0, 0.0))
    return float(found[0]), float(found[1])


def _decorated(database: Database, case: Case) -> Any:
    def test(*_: Any, **__: Any) -> None:
        return None

    decorated: Any = test
    for decorator in database.decorators(case):
        decorated = decorator(decorated)
    return decorated


def _list_naming(database: Database, case: Case) -> str:
    op, dtype = database.ops[case.op], getattr(torch, case.dtype)
    key = op.name + op.variant_test_name
    directions = [FORWARD] if case.direction == FORWARD else [case.direction, FORWARD]
    for direction in directions:
        for name, entries in database.lists[direction].items():
            if isinstance(entries, dict) and key in entries and (entries[key] is None or dtype in entries[key]):
                return name if direction == FORWARD or "GRAD" in name else f"{name}_GRAD"
    if dtype.is_complex and key not in database.lists[FORWARD]["SUPPORTED_COMPLEX_OPS"]:
        return "SUPPORTED_COMPLEX_OPS"
    return "decorator"
