"""The tests stand where what they test stands."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.process import ROOT

MIRRORED = ("ops", "engine", "macs", "training")
ELSEWHERE: dict[str, str] = {}
"""Files without a file of tests of their own, with the place that tests them and the reason."""


def _modules(folder: str) -> set[str]:
    return {path.stem for path in (ROOT / "patcher" / folder).glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("folder", MIRRORED)
def test_each_file_has_its_file_of_tests(folder: str) -> None:
    """``patcher/ops/rope.py`` is tested by ``tests/ops/test_rope.py``, which imports it."""
    for module in sorted(_modules(folder)):
        tests = ROOT / "tests" / folder / f"test_{module}.py"
        if f"{folder}/{module}" in ELSEWHERE:
            assert not tests.exists(), f"{tests.name} is there: take {folder}/{module} out of ELSEWHERE"
            continue
        assert tests.exists(), f"patcher/{folder}/{module}.py has no {tests.relative_to(ROOT)}"
        text = tests.read_text()
        named = (f"patcher.{folder}.{module} ", f"patcher.{folder} import", f"patcher.{folder}.{module},")
        assert "def test_" in text and any(name in text for name in named), f"{tests.name} does not import {module}"


def _starts_python(path: Path) -> bool:
    """Whether the file itself, not a script in one of its strings, calls ``subprocess.run([sys.executable, ...])``."""
    return any(
        isinstance(node, ast.Call)
        and ast.unparse(node.func) == "subprocess.run"
        and "sys.executable" in ast.unparse(node)
        for node in ast.walk(ast.parse(path.read_text()))
    )


def test_processes_are_started_in_one_place() -> None:
    """Tests run Python through tests/process.py; what is talked to while it runs is a ``Popen``."""
    starters = [path for path in sorted((ROOT / "tests").rglob("*.py")) if _starts_python(path)]
    assert [str(path.relative_to(ROOT)) for path in starters] == ["tests/process.py"]
