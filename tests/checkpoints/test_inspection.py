"""What is taken for a checkpoint and what is refused: truncated, altered, missing, foreign files, unsafe pickles."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from patcher.checkpoints import manifest
from patcher.checkpoints.inspection import Verdict, inspect
from patcher.replacements.transformers.trainer_utils import get_last_checkpoint, rotate_checkpoints

PARTS = ("optimizer.pt", "scheduler.pt", "rng_state.pth")
FILES = ("model.safetensors", *PARTS, "trainer_state.json", "config.json")


class Bomb:
    """Unpickled without weights_only, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def checkpoint(folder: Path, step: int, *, whole: bool = True) -> Path:
    """What transformers' Trainer saves on CUDA, in small; with the manifest that it has after a save on mps."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"w": torch.arange(64.0)}, path / "model.safetensors")
    torch.save({"state": {0: {"exp_avg": torch.arange(64.0)}}, "param_groups": []}, path / "optimizer.pt")
    torch.save({"last_epoch": step}, path / "scheduler.pt")
    torch.save({"numpy": np.random.get_state(), "cpu": torch.get_rng_state()}, path / "rng_state.pth")
    torch.save({"anything": Bomb(folder / "never")}, path / "training_args.bin")
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    (path / "config.json").write_text("{}")
    if whole:
        manifest.write(path)
    return path


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def flip(path: Path) -> None:
    """One bit in the middle; size and time of change stay as they were."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_by_text(path: Path) -> None:
    path.write_text("<html>404 Not Found</html>")


@pytest.mark.parametrize("damage", [truncate, empty, lengthen, flip, Path.unlink, replace_by_text])
@pytest.mark.parametrize("file", FILES)
def test_every_damage_to_a_saved_checkpoint_is_found(tmp_path: Path, file: str, damage: Callable[[Path], None]) -> None:
    """Each of its files, each kind of damage; the file is named."""
    path = checkpoint(tmp_path, 2)
    assert inspect(path).problems == ()
    damage(path / file)
    if damage is flip:
        manifest._checksum.cache_clear()  # as in the process that resumes
    verdict = inspect(path)
    if damage is Path.unlink and file in PARTS:  # as ``rm checkpoint-*/optimizer.pt`` does, to save space
        assert verdict == Verdict(lacks=(file,)) and verdict.shortcomings == f"no {file}: these start anew"
        return
    (problem,) = verdict.problems
    assert problem.startswith(file)


@pytest.mark.parametrize("damage", [truncate, empty, replace_by_text])
@pytest.mark.parametrize("file", FILES)
def test_without_a_manifest_the_structure_tells(tmp_path: Path, file: str, damage: Callable[[Path], None]) -> None:
    """A checkpoint from CUDA is accepted as it is, and refused where one of its files does not parse."""
    path = checkpoint(tmp_path, 2, whole=False)
    assert inspect(path) == Verdict()
    damage(path / file)
    problems = inspect(path).problems
    assert problems and all(problem.startswith(file) for problem in problems)


def test_without_a_manifest_parts_may_be_missing(tmp_path: Path) -> None:
    """save_only_model leaves out optimizer and generators; without the trainer's state nothing can go on. Weights may
    be in a file that only the trainer knows.
    """
    path = checkpoint(tmp_path, 2, whole=False)
    (path / "optimizer.pt").unlink()
    assert inspect(path).problems == () and inspect(path).lacks == ("optimizer.pt",)
    (path / "trainer_state.json").unlink()
    assert inspect(path).problems == ("trainer_state.json is missing",)
    (path / "model.safetensors").unlink()
    assert inspect(path).problems == ("trainer_state.json is missing",)
    assert not inspect(path).weights and inspect(path).lacks == ("optimizer.pt",)
    assert inspect(path).shortcomings == (
        "no weights in a file of transformers' (a trainer may have its own); no optimizer.pt: these start anew"
    )


def test_a_manifest_is_renewed_with_what_has_changed(tmp_path: Path) -> None:
    """Written, removed and added files; those beside it stay so, and nothing else is read again."""
    path = checkpoint(tmp_path, 2, whole=False)
    (path / "notes.txt").write_text("mine")
    manifest.write(path, besides={"notes.txt"})
    assert not manifest.renew(path)
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes())
    (path / "optimizer.pt").unlink()
    (path / "config.json").write_text('{"changed": true}')
    (path / "added.json").write_text("{}")
    assert inspect(path).problems
    assert manifest.renew(path)
    assert inspect(path).problems == () and inspect(path).lacks == ()
    listed = manifest.listed(path) or {}
    assert "added.json" in listed and not {"optimizer.pt", "notes.txt", manifest.NAME} & listed.keys()
    assert not manifest.renew(path) and not list(path.glob("*.new"))
    (path / manifest.NAME).unlink()
    assert not manifest.renew(path)


def test_a_manifest_that_cannot_be_renewed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk: the error is raised, and nothing half-written is left."""
    path = checkpoint(tmp_path, 2)
    before = (path / manifest.NAME).read_text()
    (path / "added.json").write_text("{}")
    monkeypatch.setattr(os, "replace", lambda *_: os.truncate("/dev/full/none", 0))
    with pytest.raises(OSError, match="/dev/full/none"):
        manifest.renew(path)
    assert (path / manifest.NAME).read_text() == before and not list(path.glob("*.new"))


def test_an_index_whose_shard_is_missing(tmp_path: Path) -> None:
    """Sharded weights, of which one file was not copied."""
    path = checkpoint(tmp_path, 2, whole=False)
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert inspect(path).problems == ("model.safetensors.index.json names model-2.safetensors, which is not there",)


@pytest.mark.parametrize("content", ['{"weight_map": null}', '{"weight_map": {"a": 1}}', "{}", "[" * 100_000])
def test_an_index_that_names_no_files(tmp_path: Path, content: str) -> None:
    """JSON of another shape, or too deep to be read: a verdict, not an error."""
    path = checkpoint(tmp_path, 2, whole=False)
    (path / "model.safetensors.index.json").write_text(content)
    (problem,) = inspect(path).problems
    assert problem.startswith("model.safetensors.index.json ")


@pytest.mark.parametrize("pickle", [b"", b"\x80\x02", b"\xff", b"\x80\x02}q", b"\x80\x02c\xff"])
def test_a_torch_file_whose_pickle_is_broken(tmp_path: Path, pickle: bytes) -> None:
    """A whole zip file around a pickle that ends too early or has an unknown operation: skipped, not an error."""
    good, broken = checkpoint(tmp_path, 2), checkpoint(tmp_path, 4, whole=False)
    with zipfile.ZipFile(broken / "optimizer.pt") as old:
        parts = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(broken / "optimizer.pt", "w") as new:
        for name, content in parts.items():
            new.writestr(name, pickle if name.endswith("data.pkl") else content)
    (problem,) = inspect(broken).problems
    assert problem.startswith("optimizer.pt cannot be read: ")
    assert get_last_checkpoint(str(tmp_path)) == str(good)


def test_what_no_resume_reads_may_change(tmp_path: Path) -> None:
    """A model card that a callback edits, and a tokenizer that it removes; but not the weights of an adapter."""
    path = checkpoint(tmp_path, 2, whole=False)
    (path / "reference").mkdir()
    for name in ("README.md", "tokenizer.json", "training_args.bin", "reference/adapter_model.safetensors"):
        (path / name).write_text("as saved")
    manifest.write(path)
    (path / "README.md").write_text("edited")
    (path / "tokenizer.json").unlink()
    assert inspect(path) == Verdict()
    assert len(manifest.differences(path, manifest.listed(path) or {})) == 2
    (path / "reference" / "adapter_model.safetensors").write_text("edited")
    assert [problem.split()[0] for problem in inspect(path).problems] == ["reference/adapter_model.safetensors"]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin"])
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, file: str, whole: bool) -> None:
    """With and without a manifest; the code does not run, and its function is named."""
    path = checkpoint(tmp_path, 2, whole=False)
    torch.save({"state": Bomb(tmp_path / "exploded")}, path / file)
    if whole:
        manifest.write(path)
    (problem,) = inspect(path).problems
    assert problem.startswith(file) and "mkdir" in problem
    assert not (tmp_path / "exploded").exists()


def test_the_newest_complete_checkpoint_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Damaged ones are skipped and named with their reason; folders that are no checkpoints do not count."""
    for step in (2, 4, 10):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 6, whole=False)
    truncate(tmp_path / "checkpoint-10" / "optimizer.pt")
    (tmp_path / "checkpoint-6" / "trainer_state.json").unlink()
    (tmp_path / "checkpoint-99x").mkdir()
    (tmp_path / "checkpoint-12").write_text("a file")
    (tmp_path / "checkpoint-11").mkdir()
    assert get_last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-4")
    messages = [record.getMessage() for record in caplog.records]
    assert [message.split("checkpoint-")[1].split()[0] for message in messages] == ["11", "10", "6"]
    assert "optimizer.pt has" in messages[1] and "trainer_state.json is missing" in messages[2]


def test_a_remainder_does_not_hide_a_complete_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Newer, but without optimizer and generators: taken only where there is nothing better, and then said."""
    checkpoint(tmp_path, 2)
    rest = checkpoint(tmp_path, 4, whole=False)
    (rest / "optimizer.pt").unlink()
    assert get_last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-2")
    shutil.rmtree(tmp_path / "checkpoint-2")
    assert get_last_checkpoint(str(tmp_path)) == str(rest)
    assert "has no optimizer.pt: these start anew" in caplog.text


def test_no_checkpoint(tmp_path: Path) -> None:
    """None as with transformers, which raises for a folder that is not there."""
    assert get_last_checkpoint(str(tmp_path)) is None
    with pytest.raises(FileNotFoundError):
        get_last_checkpoint(str(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [
        (None, None, [2, 4, 6, 8]),
        (0, None, [2, 4, 6, 8]),
        (2, None, [6, 8]),
        (1, None, [8]),
        (1, 2, [2, 8]),
        (3, 2, [2, 6, 8]),
        (9, None, [2, 4, 6, 8]),
    ],
)
def test_rotation_keeps_what_transformers_keeps(
    tmp_path: Path, limit: int | None, best: int | None, left: list[int]
) -> None:
    """The same checkpoints as transformers 5.17's own function leaves."""
    from transformers.trainer_utils import rotate_checkpoints as of_transformers

    for folder, rotate in ((tmp_path / "ours", rotate_checkpoints), (tmp_path / "theirs", of_transformers)):
        for step in (2, 4, 6, 8):
            (folder / f"checkpoint-{step}").mkdir(parents=True)
        rotate(str(folder), limit, None if best is None else str(folder / f"checkpoint-{best}"), use_mtime=True)
        assert sorted(int(path.name.split("-")[1]) for path in folder.iterdir()) == left
