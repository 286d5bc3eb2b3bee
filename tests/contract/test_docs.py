"""What the documentation says is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from patcher.calibration.parts import PARTS
from patcher.changes import catalogue
from patcher.engine.model import EnvDefault
from patcher.macs.figures import TORCH
from patcher.simulator.faults import FAULTS
from tests.process import ROOT


@pytest.mark.parametrize(("page", "least"), [("design.md", 11), ("simulated-mac.md", 11), ("calibration.md", 6)])
def test_every_test_that_a_page_names_exists(page: str, least: int) -> None:
    """A rule of docs/design.md, or a claim of docs/simulated-mac.md, names the tests that show it."""
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / page).read_text()))
    sources = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) >= least
    assert named <= set(re.findall(r"def (test_\w+)\(", sources))


def test_the_table_of_variables_is_the_catalogue() -> None:
    """docs/environment.md lists each variable with its value and its reason."""
    page = (ROOT / "docs" / "environment.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `([^`]*)` \| (.*) \|$", page, flags=re.MULTILINE)
    defaults = [change for change in catalogue() if isinstance(change, EnvDefault)]
    assert rows == [(change.name, change.value, change.why) for change in defaults]


def test_the_table_of_faults_is_that_of_the_simulator() -> None:
    """docs/faults.md lists each fault with what goes wrong, where, what answers it, and the check that looks for it."""
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|(.*)\|$", (ROOT / "docs" / "faults.md").read_text(), flags=re.MULTILINE)
    expected = []
    for fault in FAULTS.values():
        answer = f"`{fault.guard}`: {fault.reason}" if fault.guard else f"nothing: {fault.reason}"
        expected.append(
            (fault.name, f" {fault.wrong} | {fault.affects} ({fault.upstream}) | {answer} | {fault.probe or ''} ")
        )
    assert rows == expected


def test_the_parts_of_a_calibration_have_as_many_cases_as_is_said() -> None:
    """docs/calibration.md has a row for each; those of torch's database are counted where it is run."""
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", (ROOT / "docs" / "calibration.md").read_text(), flags=re.MULTILINE)
    assert [name for name, _ in rows] == [part.name for part in PARTS]
    counts = {part.name: len(importlib.import_module(part.module).cases()) for part in PARTS if part.file is None}
    assert {name: int(count) for name, count in rows if name in counts} == counts


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "Makefile", "docs/rules.md"])
def test_a_release_to_be_recorded_is_a_new_one(page: str) -> None:
    """An example names the release that comes next, and no file of rules that there is."""
    releases = re.findall(r"make wheel RELEASE=(\d+\.\d+)", (ROOT / page).read_text())
    assert releases and not set(releases) & TORCH.keys()


def test_links_lead_somewhere() -> None:
    """Relative links of README and docs/, and the headings within a page that they name."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"):
        for target, heading in re.findall(r"\]\((?![a-z]+:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
            there = page.parent / target if target else page
            assert there.exists(), f"{page.name}: {target}"
            assert not heading or heading in anchors(there), f"{page.name}: {target}#{heading}"


def anchors(page: Path) -> set[str]:
    """The names by which a browser finds a page's headings: lower case, without punctuation, spaces as hyphens."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
