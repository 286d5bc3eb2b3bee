"""Wheels, sdists, what is installed, and files that are none of these."""

from __future__ import annotations

import zipfile
from datetime import date
from pathlib import Path

import pytest

from patcher.drift import archives
from patcher.errors import ReleaseUnreadable
from tests.drift.fakes import ROOTS, sdist, wheel

FILES = {"unsloth/__init__.py": "import this", "unsloth/a/b.py": "x = 1", "unsloth/data.bin": "0", "tests/c.py": "y"}


def test_a_wheel(tmp_path: Path) -> None:
    """The library's own Python files by their dotted names, and what the metadata say."""
    release = archives.read(wheel(tmp_path, "unsloth", "2026.11.1", FILES, "unsloth_zoo>=2026.11.1", "torch"), ROOTS)
    assert (release.name, str(release.version)) == ("unsloth", "2026.11.1")
    assert release.requires == ("unsloth_zoo>=2026.11.1", "torch")
    assert release.date == date(2026, 10, 27)
    assert {name: module.package for name, module in release.modules.items()} == {
        "unsloth": "unsloth",
        "unsloth.a.b": "unsloth.a",
    }


@pytest.mark.parametrize("source", ["", "src/"])
def test_an_sdist(tmp_path: Path, source: str) -> None:
    """The same, with the library at the top or in ``src``."""
    files = {f"{source}{path}": text for path, text in FILES.items()}
    release = archives.read(sdist(tmp_path, "unsloth_zoo", "1", files), ROOTS)
    assert (release.name, str(release.version), release.date) == ("unsloth-zoo", "1", date(2026, 10, 27))
    assert release.modules["unsloth.a.b"].text == b"x = 1"


def test_dates_that_say_nothing(tmp_path: Path) -> None:
    """1980, and no month at all: the release is read, its date is unknown."""
    path = tmp_path / "unsloth-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("unsloth/a.py"), "")
        archive.writestr(zipfile.ZipInfo("unsloth/b.py", (1999, 0, 0, 0, 0, 0)), "")
        archive.writestr(zipfile.ZipInfo("unsloth-1.dist-info/METADATA"), "Name: unsloth\nVersion: 1\n")
    assert archives.read(path, ROOTS).date is None


def test_what_cannot_be_read(tmp_path: Path) -> None:
    """Each is an error that names the file and says what to do; the file stays."""
    whole = wheel(tmp_path, "unsloth", "1", FILES)
    content = whole.read_bytes()
    broken = {
        "empty.whl": b"",
        "cut.whl": content[: len(content) // 2],
        "changed.whl": content.replace(b"x = 1", b"x = 2", 1),
        "text.tar.gz": b"no archive",
        "cut.tar.gz": sdist(tmp_path, "unsloth", "2", FILES).read_bytes()[:200],
    }
    for name, damaged in broken.items():
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(ReleaseUnreadable, match=rf"(?s){name}.*do: .*rm .*{name}"):
            archives.read(tmp_path / name, ROOTS)
        assert (tmp_path / name).read_bytes() == damaged
    with pytest.raises(ReleaseUnreadable, match="FileNotFoundError"):
        archives.read(tmp_path / "gone.whl", ROOTS)


@pytest.mark.parametrize("about", [None, "Name: unsloth\n", "Name: unsloth\nVersion: new\n"])
def test_a_zip_file_that_is_no_release(tmp_path: Path, about: str | None) -> None:
    """Without metadata, or without a version in them."""
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("unsloth/a.py", "")
        if about is not None:
            archive.writestr("unsloth-1.dist-info/METADATA", about)
    with pytest.raises(ReleaseUnreadable, match=r"its? (has no metadata|metadata name no version)"):
        archives.read(path, ROOTS)


def test_what_is_kept_of_a_wheel_reads_like_it(tmp_path: Path) -> None:
    """Only the library's Python files and the metadata."""
    whole = wheel(tmp_path, "unsloth", "1", FILES, "unsloth_zoo")
    archives.write(tmp_path / "kept.zip", whole, ROOTS)
    assert archives.read(tmp_path / "kept.zip", ROOTS) == archives.read(whole, ROOTS)
    assert set(zipfile.ZipFile(tmp_path / "kept.zip").namelist()) == {
        "unsloth/__init__.py",
        "unsloth/a/b.py",
        "unsloth-1.dist-info/METADATA",
    }


def test_what_is_installed() -> None:
    """Read like a release; None where nothing of that name is there."""
    release = archives.installed("pytest", ["_pytest"])
    assert release is not None and "_pytest.monkeypatch" in release.modules
    assert archives.installed("pytest", ["nothing"]) is None
    assert archives.installed("no-such-library", ["nothing"]) is None
