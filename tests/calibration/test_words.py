"""What is kept of an exception's words."""

from __future__ import annotations

import pytest

from patcher.calibration.words import LONGEST, said, without_paths


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("in /Users/somebody/x.py", "in .../x.py"),
        ("https://github.com/pytorch/pytorch/issues/1", "https://github.com/pytorch/pytorch/issues/1"),
        ("~/models/a", ".../a"),
        (r"C:\Users\somebody\x.py: bad", ".../x.py: bad"),
        ("file:///private/var/x:3:4", "file:.../x:3:4"),
        ("program_source:3:4: error: 1/2 of aten/native/mps", "program_source:3:4: error: 1/2 of aten/native/mps"),
        ("a / b and x[1]/y", "a / b and x[1]/y"),
    ],
)
def test_paths_go(text: str, kept: str) -> None:
    """Absolute ones, but for their last name; what is no path stays."""
    assert without_paths(text) == kept


def test_a_home_with_a_space_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path ends at a space, a home does not."""
    monkeypatch.setenv("HOME", "/Users/some body")
    assert without_paths("no '/Users/some body/x'") == "no '.../x'"


@pytest.mark.parametrize("place", ["sys.prefix", "ROOT"])
def test_other_folders_with_a_space_go(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """The environment and the checkout may lie on a disk that has its owner's name."""
    monkeypatch.setattr(f"patcher.calibration.words.{place}", "/Volumes/some body/work")
    assert without_paths("dlopen(/Volumes/some body/work/lib/x.dylib)") == "dlopen(.../x.dylib)"


def test_only_the_first_line_is_kept() -> None:
    """And not all of a long one."""
    assert said(ValueError("first\nsecond")) == "first"
    assert said(ValueError("")) == ""
    assert len(said(ValueError("x" * 1000))) == LONGEST
