"""The account of Triton's tests: what counts as what."""

from __future__ import annotations

import json
from pathlib import Path

from tests.triton_suite.account import Account, Outcome, Reason, read, reasons


def test_a_failure_is_known_by_its_name_and_its_words() -> None:
    """Both have to fit; whatever else fails is unknown and is shown."""
    fp64 = Outcome("test_core.py::test_bin_op[float64]", "failed", "Float64OnMps: mps has no float64")
    strange = Outcome("test_core.py::test_bin_op[int32]", "failed", "AssertionError: 3 is no 4")
    account = Account([fp64, strange, Outcome("test_core.py::test_x", "passed", "")])
    assert account.unknown == [strange]
    told = str(account)
    assert "failed for no known reason: test_core.py::test_bin_op[int32]: AssertionError: 3 is no 4" in told
    assert next(line for line in told.splitlines() if line.startswith("all")).split() == [
        "all",
        "1",
        "1",
        "1",
        "0",
        "50.0",
        "%",
    ]


def test_reasons_are_told_and_taken_in_order() -> None:
    """Each has words; patterns and expressions narrow it."""
    assert all(reason.why and reason.tests for reason in reasons())
    late = Reason("slow", ("test_a.py::test_b*",), "still running")
    assert late.holds(Outcome("test_a.py::test_b[1]", "failed", "TimeoutError: still running after 60 s"))
    assert not late.holds(Outcome("test_a.py::test_b[1]", "failed", "AssertionError"))
    assert not late.holds(Outcome("test_a.py::test_c", "failed", "still running"))


def test_launches_are_counted_by_where_they_ran() -> None:
    """A test counts once, whichever of its launches was a shader."""
    outcomes = [
        Outcome("test_a.py::test_b", "passed", "", {"": 3, "fp64 is no type of Metal's": 2}),
        Outcome("test_a.py::test_c", "passed", "", {"fp64 is no type of Metal's": 1}),
        Outcome("test_a.py::test_d", "passed", ""),
    ]
    told = str(Account(outcomes)).splitlines()
    assert "launches: 6, 3 as shaders; tests: 2, 1 with one" in told
    assert "     3 with torch operators: fp64 is no type of Metal's" in told


def test_outcomes_are_read_by_file(tmp_path: Path) -> None:
    """The last one of a test counts: a teardown may fail after the call has passed."""
    lines = [
        {"test": "unit/language/test_a.py::test_b[x/y]", "outcome": outcome, "why": "", "seconds": 0.1}
        for outcome in ("passed", "failed")
    ]
    (tmp_path / "a").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read([tmp_path / "a", tmp_path / "missing"]) == [Outcome("test_a.py::test_b[x/y]", "failed", "")]
