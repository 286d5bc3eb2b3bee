"""The folder that stands for an installed llama.cpp."""

from __future__ import annotations

import json
from importlib.metadata import FileHash
from pathlib import Path

import pytest

from patcher.errors import ExportFailed
from patcher.gguf import folder


@pytest.fixture(autouse=True)
def without_converter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The converter's package need not be installed for these."""
    monkeypatch.setattr(folder, "_copy_converter", lambda path: path.mkdir(parents=True))


def test_a_folder_of_the_users_is_left_alone(tmp_path: Path) -> None:
    """Refused by name, and every file is still there."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ExportFailed, match="left as it is"):
        folder.lay_out(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_is_made_again_when_a_version_changes(tmp_path: Path) -> None:
    """The marker holds versions and interpreter; another one makes the folder stale, and `lay_out` renews it."""
    place = tmp_path / "llama.cpp"
    quantizer, _ = folder.lay_out(place)
    assert folder.is_current(place)
    assert Path(quantizer).stat().st_mode & 0o111
    marker = place / folder.MARKER
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "libgguf": "0.0.1"}))
    assert folder.is_ours(place) and not folder.is_current(place)
    folder.lay_out(place)
    assert folder.is_current(place)


def test_a_file_that_another_package_replaced_is_refused() -> None:
    """The digest is the one that the converter's package recorded; the message has the command that mends it."""
    recorded = FileHash("sha256=" + "A" * 43)
    with pytest.raises(ExportFailed, match="--force-reinstall"):
        folder._check("gguf/constants.py", b"of the package gguf", recorded)
