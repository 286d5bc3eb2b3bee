"""On a Mac ``make test`` skips what needs Linux, with the reason, and fails for everything else."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import linux_only
from tests.process import ROOT, run_python

TESTS = """
import pytest
from patcher.errors import SimulatorUnavailable

@pytest.fixture
def device():
    raise SimulatorUnavailable("the simulated mps device runs on Linux")

def test_fixture(device): pass
def test_oracle(): raise AssertionError("no Triton in .venv/oracle; install it")
def test_interposer(): assert False, "LD_PRELOAD needs Linux"
def test_proc(): open("/proc/no/such/file")
def test_other(): raise SimulatorUnavailable("no compiler")
def test_wrong(): assert 1 == 2
def test_right(): pass
"""

SAYING = ("patcher/simulator/build.py", "tests/oracle/client.py", "tests/interposer.py")
ON_A_MAC = (
    "import sys, types, pytest; from tests import linux_only; linux_only.sys = types.SimpleNamespace(platform={!r}); "
    "sys.exit(pytest.main(['-p', 'tests.linux_only', '-p', 'no:warnings', *sys.argv[1:]]))"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("platform", "summary"), [("darwin", "2 failed, 1 passed, 5 skipped"), ("linux", "5 failed, 1 passed, 1 error")]
)
def test_what_needs_linux_is_skipped_on_a_mac(tmp_path: Path, platform: str, summary: str) -> None:
    """By the words of the failure, in tests, fixtures and imports; nowhere else."""
    (tmp_path / "test_it.py").write_text(TESTS)
    imports = tmp_path / "test_import.py"
    imports.write_text('raise RuntimeError("the simulated mps device runs on Linux")' if platform == "darwin" else "")
    done = run_python("-c", ON_A_MAC.format(platform), "-q", "-rs", tmp_path, cwd=tmp_path, check=False)
    assert summary in done.stdout, done.stdout
    reasons = set(re.findall(r"^SKIPPED .*: (?:Skipped: )?needs (.*)$", done.stdout, flags=re.MULTILINE))
    assert reasons == (set(linux_only.LACKS.values()) if platform == "darwin" else set())


def test_the_words_are_those_that_are_said() -> None:
    """Each stands in the code that says it."""
    said = "\n".join((ROOT / name).read_text() for name in SAYING)
    assert [words for words in linux_only.LACKS if words not in said and "/proc/" not in words] == []


def test_nothing_is_skipped_on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a failure says; on a Mac each of the words has its reason."""
    for platform in ("linux", "darwin"):
        monkeypatch.setattr(linux_only, "sys", SimpleNamespace(platform=platform))
        found = [linux_only.lacking(f"x: {words}") for words in linux_only.LACKS]
        assert found == ([None] * len(found) if platform == "linux" else list(linux_only.LACKS.values()))
