"""Rows that are empty, too long or no text: what upstream makes of them is kept, and nothing trains on nonsense."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.models import save
from tests.e2e.process import clean_environment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("stack", ["trl", "unsloth"])
def test_rows_that_are_empty_too_long_or_no_text(tmp_path: Path, stack: str) -> None:
    """Too long ones are cut and train. Empty ones train with TRL, which ends each with a token; through Unsloth, which
    does not, their batch is refused. What is no text is refused when the rows are tokenized."""
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.odd_rows", stack, str(save("llama", tmp_path)), str(out)],
        cwd=tmp_path,
        env=clean_environment(PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    found: dict[str, Any] = json.loads(out.read_text())
    assert found["overlong"]["lengths"][0] == 32
    assert len(found["overlong"]["losses"]) == 2 and all(map(math.isfinite, found["overlong"]["losses"]))
    if stack == "trl":
        assert found["empty"]["lengths"][0] == 1 and all(map(math.isfinite, found["empty"]["losses"]))
    else:
        assert found["empty"]["error"][0] == "RuntimeError" and "indices" in found["empty"]["error"][1]
    for name in ("missing", "numbers"):
        assert found[name]["error"][0] in ("AttributeError", "ValueError", "TypeError")
        assert any(word in found[name]["error"][1] for word in ("NoneType", "'int'", "type `str`")), found[name]
