"""Every idiom of the table in docs/idioms.md does what the table says."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.idioms.table import PAGE, ROWS, printed
from tests.process import run_module

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    file = tmp_path_factory.mktemp("idioms") / "outcomes.json"
    run_module("tests.idioms.run", file, timeout=240)
    found: dict[str, str] = json.loads(file.read_text())
    return found


@pytest.mark.parametrize("row", [row for row in ROWS if "code" in row], ids=lambda row: row["write"])
def test_an_idiom_does_what_the_table_says(outcomes: dict[str, str], row: dict[str, Any]) -> None:
    if "refused" in row:
        assert outcomes[row["write"]].startswith(f"NotOnMac: {row['refused']}")
        assert re.search(r"^  (expected|do):", outcomes[row["write"]], re.MULTILINE)  # what to write instead
    elif "missing" in row:
        assert outcomes[row["write"]].startswith(tuple(row["missing"]))
    else:
        assert outcomes[row["write"]] == row["gives"]


def test_the_page_ends_with_the_tables() -> None:
    assert PAGE.read_text().endswith(f"\n\n{printed()}")
