"""A folder that is saved is whole or absent, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from patcher.checkpoints import manifest, storage
from patcher.replacements.transformers_trainer_utils import get_last_checkpoint
from tests.interposer import library

ROOT = Path(__file__).resolve().parents[2]


def save(parent: Path, name: str, value: str = "x") -> Path:
    with storage.saving(parent, name) as folder:
        (folder / name).mkdir()
        (folder / name / "file").write_text(value)
    return parent / name


def test_a_kill_or_a_full_disk_at_any_file_operation_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    """First save, next save with a removal, save over an existing one: killed at every operation, torn writes included;
    and a disk that is full from every operation on."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.changes.kill_storage", str(tmp_path / "saves")],
        cwd=ROOT,
        env=os.environ | {"LD_PRELOAD": str(library(tmp_path))},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result = json.loads(done.stdout)
    assert {scenario: found["wrong"] for scenario, found in result.items()} == {
        scenario: [] for scenario in ("first", "next", "again", "full")
    }
    assert all(found["operations"] >= 15 for found in result.values()), result


def test_a_save_that_raises_leaves_nothing(tmp_path: Path) -> None:
    """The exception goes on, the old folder stays."""
    save(tmp_path, "checkpoint-2", "old")
    with pytest.raises(KeyboardInterrupt), storage.saving(tmp_path, "checkpoint-2") as folder:
        (folder / "checkpoint-2").mkdir()
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]
    assert (tmp_path / "checkpoint-2" / "file").read_text() == "old"


def test_a_save_at_work_is_left_alone(tmp_path: Path) -> None:
    """Another process that looks for the last checkpoint takes nothing away from one that is being written."""
    look = "import sys; from pathlib import Path; from patcher.checkpoints import storage as s; " \
        "p = Path(sys.argv[1]); print(s.finish_interrupted(p)); s.remove_leftovers(p)"  # fmt: skip
    with storage.saving(tmp_path, "checkpoint-2") as folder:
        (folder / "checkpoint-2").mkdir()
        (folder / "checkpoint-2" / "file").write_text("x")
        manifest.write(folder / "checkpoint-2")
        found = subprocess.run(
            [sys.executable, "-c", look, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
        )
    assert found.stdout.strip() == "[]"
    assert manifest.differences(tmp_path / "checkpoint-2") == []


def test_what_a_script_writes_beside_its_checkpoint_stays(tmp_path: Path) -> None:
    """Some overridden save_model write into the parent of the folder that they are given."""
    with storage.saving(tmp_path, "checkpoint-2") as folder:
        (folder / "checkpoint-2").mkdir()
        (folder / "projector").mkdir()
        (folder / "projector" / "weights").write_text("w")
    assert (tmp_path / "projector" / "weights").read_text() == "w"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "projector"]


def test_an_interrupted_save_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The rest of a killed save is told from a checkpoint, said, and removed by the next save."""
    rest = tmp_path / ".checkpoint-4.saving-abc" / "checkpoint-4"
    rest.mkdir(parents=True)
    (rest / "file").write_text("half")
    last = save(tmp_path / "elsewhere", "checkpoint-2")
    last.rename(tmp_path / "checkpoint-2")
    (tmp_path / "elsewhere").rmdir()
    assert get_last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-2")
    assert "checkpoint-4" in caplog.text
    save(tmp_path, "checkpoint-6")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-6"]


def test_an_interruption_between_two_renames_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C when the old folder has gone aside and the new one has no name yet: the next look gives it."""
    save(tmp_path, "checkpoint-2", "old")
    rename = os.rename

    def interrupted(source: Path, target: Path) -> None:
        rename(source, target)
        if ".removing-" in str(target):
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, "checkpoint-2", "new")
    monkeypatch.setattr(os, "rename", rename)
    assert not (tmp_path / "checkpoint-2").exists()
    assert storage.finish_interrupted(tmp_path) == []
    assert (tmp_path / "checkpoint-2" / "file").read_text() == "new"
