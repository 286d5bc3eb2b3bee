"""What the documentation says is there."""

from __future__ import annotations

import re
from pathlib import Path

from patcher.changes import catalogue
from patcher.model import EnvDefault

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_that_the_design_names_exists() -> None:
    """A rule of docs/design.md names the tests that show it."""
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "design.md").read_text()))
    sources = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 10
    assert named <= set(re.findall(r"def (test_\w+)\(", sources))


def test_the_table_of_variables_is_the_catalogue() -> None:
    """docs/environment.md lists each variable with its value and its reason."""
    page = (ROOT / "docs" / "environment.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `([^`]*)` \| (.*) \|$", page, flags=re.MULTILINE)
    defaults = [change for change in catalogue() if isinstance(change, EnvDefault)]
    assert rows == [(change.name, change.value, change.why) for change in defaults]


def test_links_lead_somewhere() -> None:
    """Relative links of README and docs/."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
