"""The verdict of the text is that of the running process: on faked releases, and on the installed one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from unittest import mock

import pytest
import tomllib

from patcher.changes import catalogue
from patcher.drift import releases
from patcher.drift.archives import Release as Read
from patcher.drift.archives import read
from patcher.drift.compare import Status, compare, targeted
from patcher.drift.kernels import kernels_of
from patcher.drift.names import Texts
from patcher.engine import ledger
from patcher.engine.model import State
from patcher.engine.session import GATE
from tests.contract.drift import Drift, Release, changes, drifts, hidden, outcome
from tests.drift.fakes import ROOTS, expected, wheel
from tests.process import ROOT

CHANGES = changes()
GOOD = Release.expected(CHANGES)
IN_PLACE = {State.APPLIED, State.UNREVIEWED}


def _rest(release: Release) -> tuple[object, ...]:
    others = {name: names for name, names in release.modules.items() if not name.startswith(GATE)}
    return others, release.operators


DRIFTS = [drift for drift in drifts(CHANGES) if _rest(drift.release) == _rest(GOOD)]
"""Those in which Unsloth moves and nothing else."""


@pytest.fixture(scope="module", autouse=True)
def no_real_library() -> Iterator[None]:
    roots = {module.partition(".")[0] for module in GOOD.modules}
    with hidden(roots), mock.patch.object(ledger, "installed_version", cache(ledger.installed_version)):
        yield


def test_every_change_of_unsloth_drifts_here() -> None:
    """Else the next test would say little."""
    ours = {change.key for change in CHANGES if change.distribution in ROOTS}
    assert {key for drift in DRIFTS for key in drift.refused | drift.skipped} == ours and len(ours) > 40


@pytest.mark.parametrize("drift", [None, *DRIFTS], ids=lambda drift: drift.what if drift else "as expected")
def test_a_text_and_a_process_agree(drift: Drift | None, tmp_path: Path) -> None:
    """One thing drifts: what the ledger says after `import unsloth` is what the text of the same release says."""
    release = GOOD if drift is None else drift.release
    found = [read(wheel(tmp_path, name, "2026.10.9", expected(name, release)), ROOTS) for name in ROOTS]
    texts = Texts(found)
    answers = [compare(change, texts) for change in targeted(CHANGES, found)]
    states = outcome(CHANGES, release, [GATE]).states
    for answer in answers:
        assert (answer.status is Status.FITS) == (states[answer.change.key] in IN_PLACE), answer
        assert (answer.status is Status.SUPPLIED) == (states[answer.change.key] is State.SKIPPED), answer
    assert {a.change.key for a in answers} == {c.key for c in CHANGES if c.distribution in ROOTS}


# -- what is installed ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reviewed() -> tuple[Read, ...]:
    return releases.reviewed("unsloth")


def test_everything_fits_the_reviewed_release(reviewed: tuple[Read, ...]) -> None:
    """It is installed, trains in the other tests, and is read here as a release is."""
    assert [release.name for release in reviewed] == ["unsloth", "unsloth-zoo"]
    texts = Texts(reviewed)
    answers = [compare(change, texts) for change in targeted(catalogue(), reviewed)]
    assert len(answers) > 40
    others = [answer for answer in answers if answer.status is not Status.FITS]
    assert [answer for answer in others if answer.status is not Status.NEEDLESS] == []
    assert all(answer.change.before is not None for answer in others)


@pytest.mark.parametrize("library", [name for name in releases.libraries() if not name.startswith("unsloth")])
def test_everything_fits_the_other_libraries(library: str) -> None:
    """As far as their texts tell."""
    found = releases.reviewed(library)
    texts = Texts(found)
    answers = [compare(change, texts) for change in targeted(catalogue(), found)]
    assert answers and [answer for answer in answers if not answer.fits] == []


def test_the_kernels_are_those_that_have_a_verdict(reviewed: tuple[Read, ...]) -> None:
    """Of the data file that says what keeps a Mac from each kernel."""
    data = tomllib.loads((ROOT / "tests" / "contract" / "launch_sites.toml").read_text())
    listed: dict[str, Counter[str]] = {}
    for site in data["site"] + data["no_launch"]:
        if site["file"].partition("/")[0] in ROOTS and site.get("kernels"):
            module = site["file"].removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            listed.setdefault(module, Counter()).update(site["kernels"])
    assert kernels_of(reviewed) == listed
