"""Writing and removing checkpoint folders so that a kill, a crash or a full disk at any moment leaves no half of one.

    .checkpoint-12.saving-x/checkpoint-12/   written here: files, then the manifest; all of it forced to the disk
    checkpoint-12/                           then renamed, which a file system does whole or not at all
    .checkpoint-4.removing-x/                what is to go is renamed first, then removed

Folders of the first and the third kind that a killed process has left are told from those at work by a lock on the
folder: the kernel releases it with the process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patcher.checkpoints import inspection, manifest

_SAVING = re.compile(r"^\..+\.saving-\w+$")
_NOT_OFFERED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY}
"""What file systems answer that cannot flush, such as some network drives."""
_REMOVING = re.compile(r"^\..+\.removing-\w+$")


@contextmanager
def saving(parent: Path, name: str) -> Iterator[Path]:
    """Gives a folder in which to write the folder ``name``; afterwards ``parent/name`` is there, complete.

    Where the block writes no such folder, nothing happens. An existing ``parent/name`` is replaced; files in it that no
    manifest lists (somebody else's) are kept. When the block raises, nothing is left of it, and ``parent/name`` is as
    it was.
    """
    parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(parent)
    staging = Path(tempfile.mkdtemp(prefix=f".{name}.saving-", dir=parent))
    with _locked(staging):
        try:
            yield staging
            if not (staging / name).is_dir():
                _move_up(staging, parent)
                shutil.rmtree(staging)
                return
            kept = _keep_files_of_others(parent / name, staging / name)
            manifest.write(staging / name, besides=kept)
            flush(staging / name)
            publish(staging, parent, name)
        except BaseException as error:
            # Interrupted while a complete folder takes the place of another: the next look for it goes on from there.
            between = (staging / name / manifest.NAME).is_file() and not (parent / name).exists()
            if isinstance(error, OSError) or not between:
                shutil.rmtree(staging, ignore_errors=True)
            raise


def publish(staging: Path, parent: Path, name: str) -> None:
    """Renames the complete folder ``staging/name`` to ``parent/name`` and takes the staging folder away."""
    final = parent / name
    if final.exists():
        old = _aside(final)
        try:
            os.rename(staging / name, final)
        except OSError:
            os.rename(old, final)
            raise
        _flush_folder(parent)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(staging / name, final)
        _flush_folder(parent)
    _move_up(staging, parent)
    shutil.rmtree(staging, ignore_errors=True)


def remove(folder: Path) -> None:
    """Removes a folder: whatever happens meanwhile, it is whole or not there under its name."""
    shutil.rmtree(_aside(folder), ignore_errors=True)


def finish_interrupted(parent: Path) -> list[str]:
    """Completes saves that were killed between their last file and their name; returns the names of the others.

    The names are those of checkpoints of which only a part was written. Nothing of them is used.
    """
    lost = []
    for staging in _leftovers(parent, _SAVING):
        name = staging.name[1:].rpartition(".saving-")[0]
        with _locked(staging) as ours:
            if ours and not _finished(staging, parent, name):
                lost.append(name)
    return lost


def remove_leftovers(parent: Path) -> None:
    """Removes what killed processes left, after completing what can be completed."""
    finish_interrupted(parent)
    for folder in (*_leftovers(parent, _SAVING), *_leftovers(parent, _REMOVING)):
        with _locked(folder) as ours:
            if ours:
                shutil.rmtree(folder, ignore_errors=True)


def flush(folder: Path) -> None:
    """Forces every file under a folder, and the folders themselves, to the disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            _flush_file(os.path.join(place, name))
        _flush_folder(Path(place))


def _leftovers(parent: Path, form: re.Pattern[str]) -> list[Path]:
    return sorted(path for path in parent.iterdir() if form.match(path.name) and path.is_dir())


def _aside(folder: Path) -> Path:
    """Gives the folder a name that says that it goes. Needs no space: there may be none."""
    place = folder.parent / f".{folder.name}.removing-{secrets.token_hex(4)}"
    os.rename(folder, place)
    return place


def _finished(staging: Path, parent: Path, name: str) -> bool:
    """Publishes a save that is complete; says whether it was, and could be: the file system may be read-only."""
    if not (staging / name / manifest.NAME).is_file() or inspection.inspect(staging / name).problems:
        return False
    try:
        publish(staging, parent, name)
    except OSError:
        return False
    return True


def _keep_files_of_others(final: Path, new: Path) -> set[str]:
    """Copies what the folder that is replaced holds and the new one lacks, and no save of ours had written."""
    try:
        ours = manifest.listed(final) or {}
    except ValueError:
        ours = {}
    kept = set()
    for path in sorted(final.rglob("*")):
        name = path.relative_to(final).as_posix()
        if path.is_file() and name not in ours and name != manifest.NAME and not (new / name).exists():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, new / name)
            kept.add(name)
    return kept


def _move_up(staging: Path, parent: Path) -> None:
    """What a script has written beside its checkpoint, by the path that it was given, goes beside the final one."""
    for path in sorted(staging.rglob("*")):
        if path.is_file():
            target = parent / path.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Holds the lock of a folder; gives False where somebody else holds it, or the file system knows no locks."""
    with contextlib.ExitStack() as stack:
        try:
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def _flush_file(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _to_disk(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    _flush_file(str(folder))


def _to_disk(descriptor: int) -> None:
    """fsync; on macOS F_FULLFSYNC, because fsync there leaves the data in the drive's cache (man 2 fsync)."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        try:
            fcntl.fcntl(descriptor, full)
            return
        except OSError as error:
            if error.errno not in _NOT_OFFERED:
                raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
