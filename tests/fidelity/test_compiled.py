"""The list of what torch's compiler cannot do for a Mac, against torch's own lists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fidelity.corpora.compiled import Failure, failures
from tests.fidelity.expectations import FAILS
from tests.process import run_python

KNOWN = failures()


def of_kind(kind: str) -> list[tuple[str, str]]:
    return [case for case, failure in KNOWN.items() if failure.kind == kind]


def test_every_kind_has_evidence() -> None:
    """And words that tell its error from others."""
    assert all(failure.evidence.strip() and failure.words.strip() for failure in KNOWN.values())


WITHOUT_THE_COMPILER = """
import json, sys, torch
from patcher.simulator import start
from tests.fidelity.database import Database
from tests.fidelity.expectations import applied
database = Database(start("M1 8GB, torch 2.13").mac.macos)
verdicts = [
    applied(database.decorators(name, "float32", test), dtype=torch.float32, op=database.ops[name]).verdict
    for name, test in json.loads(sys.argv[1])
]
print(json.dumps(verdicts))
"""


@pytest.mark.slow
def test_operators_without_a_kernel_fail_without_the_compiler_too() -> None:
    """torch's own lists of what fails on a Mac have each of them."""
    cases = of_kind("no mps kernel")
    verdicts = json.loads(run_python("-c", WITHOUT_THE_COMPILER, json.dumps(cases)).stdout.splitlines()[-1])
    assert len(cases) > 30
    assert [case for case, verdict in zip(cases, verdicts, strict=True) if verdict != FAILS] == []


def test_an_operator_is_listed_once(tmp_path: Path) -> None:
    """Two reasons for one failure would hide each other."""
    path = tmp_path / "compiled.toml"
    entry = '[[failure]]\nkind = "a"\nevidence = "b"\nwords = "in {name}"\ncases = ["sin forward gradient"]\n'
    path.write_text(entry)
    assert failures(path)["sin", "gradient"] == Failure("a", "b", "in sin")
    path.write_text(2 * entry)
    with pytest.raises(ValueError, match="sin forward is listed twice"):
        failures(path)
