"""A folder that is saved is whole or absent, whatever happens meanwhile."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from patcher.checkpoints import manifest, storage
from patcher.errors import CheckpointNotSaved
from patcher.replacements.transformers.trainer_checkpoint import save_whole
from patcher.replacements.transformers.trainer_utils import get_last_checkpoint, rotate_checkpoints
from tests.interposer import library
from tests.process import run_module, run_python


def save(parent: Path, name: str, value: str = "x") -> Path:
    with storage.saving(parent, name) as folder:
        (folder / name).mkdir()
        (folder / name / "file").write_text(value)
    return parent / name


def test_a_kill_or_a_full_disk_at_any_file_operation_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    """First save, next save with a removal, save over an existing one: killed at every operation, torn writes included;
    and a disk that is full from every operation on."""
    done = run_module(
        "tests.checkpoints.kill_storage", tmp_path / "saves", timeout=200, LD_PRELOAD=str(library(tmp_path))
    )
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
        found = run_python("-c", look, tmp_path)
    assert found.stdout.strip() == "[]"
    assert manifest.is_kept(tmp_path / "checkpoint-2")


def test_a_save_that_is_tidied_away_before_its_lock_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process takes the empty folder for a leftover, between its making and its lock."""
    make = tempfile.mkdtemp
    made: list[str] = []

    def tidied(prefix: str, dir: Path) -> str:
        made.append(make(prefix=prefix, dir=dir))
        if len(made) == 1:
            storage.remove_leftovers(tmp_path)
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", tidied)
    save(tmp_path, "checkpoint-2")
    assert len(made) == 2 and manifest.is_kept(tmp_path / "checkpoint-2")


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
    rest = tmp_path / "_checkpoint-4.saving-abc" / "checkpoint-4"
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
        if str(target).endswith(".old"):
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, "checkpoint-2", "new")
    monkeypatch.setattr(os, "rename", rename)
    assert not (tmp_path / "checkpoint-2").exists()
    assert storage.finish_interrupted(tmp_path) == []
    assert (tmp_path / "checkpoint-2" / "file").read_text() == "new"


def interrupt_between(monkeypatch: pytest.MonkeyPatch, error: BaseException, fails: str) -> None:
    """Renames to a path that ends so raise; what was renamed before stays as it is."""
    rename = os.rename

    def interrupted(source: Path, target: Path) -> None:
        if str(target).endswith(fails):
            raise error
        rename(source, target)

    monkeypatch.setattr(os, "rename", interrupted)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "gone")])
def test_the_replaced_checkpoint_comes_back_where_the_new_one_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """The new folder gets no name and, with a disk that fails, the old one not its own again; then the new one loses a
    part: the next look and the next save leave the old one, whole."""
    save(tmp_path, "checkpoint-2", "old")
    with monkeypatch.context() as patch, pytest.raises(type(error)):
        interrupt_between(patch, error, "checkpoint-2")
        save(tmp_path, "checkpoint-2", "new")
    (staging,) = tmp_path.iterdir()
    (staging / "checkpoint-2" / "file").write_text("torn")
    assert storage.finish_interrupted(tmp_path) == ["checkpoint-2"]
    assert (tmp_path / "checkpoint-2" / "file").read_text() == "old"
    storage.remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]
    assert manifest.is_kept(tmp_path / "checkpoint-2")


def test_the_only_copy_stays_where_it_cannot_be_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as renaming fails, neither a look nor a save's tidying takes the two unnamed copies away."""
    save(tmp_path, "checkpoint-2", "old")
    with monkeypatch.context() as patch:
        interrupt_between(patch, OSError(errno.EIO, "gone"), "checkpoint-2")
        with pytest.raises(OSError, match="gone"):
            save(tmp_path, "checkpoint-2", "new")
        storage.remove_leftovers(tmp_path)
    assert storage.finish_interrupted(tmp_path) == []
    assert (tmp_path / "checkpoint-2" / "file").read_text() == "new"


def test_uploads_leave_out_what_is_being_written(tmp_path: Path) -> None:
    """huggingface_hub's own filter with the patterns that transformers gives it, during a replacement."""
    from huggingface_hub.utils import filter_repo_objects

    save(tmp_path, "checkpoint-2")
    found: list[str] = []

    def look() -> None:
        found.extend(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())

    with storage.saving(tmp_path, "checkpoint-2") as folder:
        (folder / "checkpoint-2").mkdir()
        (folder / "checkpoint-2" / "file").write_text("x")
        look()
        os.rename(tmp_path / "checkpoint-2", folder / "checkpoint-2.old")
        look()
        os.rename(folder / "checkpoint-2.old", tmp_path / "checkpoint-2")
    removing = tmp_path / "checkpoint-2"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage.shutil, "rmtree", lambda *_, **__: look())
        storage.remove(removing)
    assert any(".saving-" in name for name in found) and any(".removing-" in name for name in found)
    assert list(filter_repo_objects(found, ignore_patterns=["_*", "checkpoint-*"])) == []


@pytest.mark.parametrize("broken", [False, True])
def test_old_weights_do_not_come_beside_new_ones(tmp_path: Path, broken: bool) -> None:
    """A checkpoint from elsewhere, or one whose manifest is broken, is replaced by one in other files."""
    old = tmp_path / "checkpoint-2"
    (old / "default").mkdir(parents=True)
    of_a_save = (
        "trainer_state.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "optimizer.pt",
        "default/adapter_model.bin",
    )
    for name in (*of_a_save, "notes.txt"):
        (old / name).write_text("old")
    if broken:
        (old / manifest.NAME).write_text("{")
    save(tmp_path, "checkpoint-2", "new")
    names = sorted(path.relative_to(old).as_posix() for path in old.rglob("*") if path.is_file())
    assert names == [manifest.NAME, "file", "notes.txt"]


def test_what_a_script_writes_before_the_save_is_kept(tmp_path: Path) -> None:
    """An overridden ``_save_checkpoint`` may write a projector and a state of its own into the folder first."""
    folder = tmp_path / "checkpoint-2"
    folder.mkdir()
    for name in ("projector.safetensors", "my_state.json", "ema.pt"):
        (folder / name).write_text("mine")
    save(tmp_path, "checkpoint-2", "new")
    names = sorted(path.name for path in folder.iterdir())
    assert names == [manifest.NAME, "ema.pt", "file", "my_state.json", "projector.safetensors"]


def test_a_link_to_a_checkpoint_is_rotated_away(tmp_path: Path) -> None:
    """Only the link goes; a checkpoint that is saved in the place of a link to nothing takes it."""
    elsewhere = save(tmp_path / "elsewhere", "checkpoint-2")
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoint-2").symlink_to(elsewhere)
    (run / "checkpoint-6").symlink_to(tmp_path / "nothing")
    save(run, "checkpoint-4")
    save(run, "checkpoint-6")
    rotate_checkpoints(str(run), 2)
    assert sorted(path.name for path in run.iterdir()) == ["checkpoint-4", "checkpoint-6"]
    assert (elsewhere / "file").read_text() == "x" and not (run / "checkpoint-6").is_symlink()


def test_links_to_nothing_and_pipes_are_not_flushed(tmp_path: Path) -> None:
    """Callbacks leave such things in checkpoints; opening a pipe would wait for ever."""
    with storage.saving(tmp_path, "checkpoint-2") as folder:
        (folder / "checkpoint-2").mkdir()
        (folder / "checkpoint-2" / "latest").symlink_to("nothing")
        os.mkfifo(folder / "checkpoint-2" / "pipe")
    assert manifest.is_kept(tmp_path / "checkpoint-2")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EBADF, errno.EACCES])
def test_a_file_system_that_cannot_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Some network drives: saved all the same. A disk that fails is another matter."""

    def fsync(_: int) -> None:
        raise OSError(number, "not offered")

    monkeypatch.setattr(os, "fsync", fsync)
    assert (save(tmp_path, "checkpoint-2") / "file").exists()
    number = errno.EIO
    with pytest.raises(OSError, match="not offered"):
        save(tmp_path, "checkpoint-4")


class TrainerOf:
    """What `save_whole` needs of a trainer at step 2 of a run in a folder."""

    def __init__(self, run_dir: Path) -> None:
        self.args = SimpleNamespace(world_size=1)
        self.state = SimpleNamespace(global_step=2, best_model_checkpoint=None)
        self._run_dir = str(run_dir)

    def _get_output_dir(self, _: object) -> str:
        return self._run_dir


def test_the_reason_of_a_failed_save_is_told(tmp_path: Path) -> None:
    """Where the folder cannot even be made, and where the error has no text."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointNotSaved, match="NotADirectoryError"):
        save_whole(TrainerOf(tmp_path / "file" / "run"), None, lambda: None)

    def slow() -> None:
        raise TimeoutError

    with pytest.raises(CheckpointNotSaved, match=r"TimeoutError; .* GiB are free"):
        save_whole(TrainerOf(tmp_path / "run"), None, slow)

    def elsewhere() -> None:
        (tmp_path / "nowhere" / "tokenizer.json").read_text()

    with pytest.raises(FileNotFoundError, match="nowhere"):
        save_whole(TrainerOf(tmp_path / "run"), None, elsewhere)
