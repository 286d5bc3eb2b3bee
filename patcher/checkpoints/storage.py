"""Writing and removing checkpoint folders so that a kill, a crash or a full disk at any moment leaves no half of one.

    _checkpoint-12.saving-x/checkpoint-12/        written here: files, then the manifest; all of it forced to the disk
    _checkpoint-12.saving-x/checkpoint-12.old/    what it replaces, until the next line is done
    checkpoint-12/                                then renamed, which a file system does whole or not at all
    _checkpoint-4.removing-x/                     what is to go is renamed first, then removed

Folders of the first and the third kind that a killed process has left are told from those at work by a lock on the
folder: the kernel releases it with the process. Their names begin with ``_`` because transformers leaves such files
out when it uploads the folder of the checkpoints (``Trainer.push_to_hub``, 5.17.0).
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

_SAVING = re.compile(r"^_(.+)\.saving-\w+$")
_REMOVING = re.compile(r"^_(.+)\.removing-\w+$")
_NOT_OFFERED = {
    *(errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY),
    *(errno.ENOSYS, errno.EBADF, errno.EACCES),
}
"""What file systems answer that cannot flush, such as some network drives; the last two where it takes a file that is
open for writing."""


@contextmanager
def saving(parent: Path, name: str) -> Iterator[Path]:
    """Gives a folder in which to write the folder ``name``; afterwards ``parent/name`` is there, complete.

    Where the block writes no such folder, nothing happens. An existing ``parent/name`` is replaced; files in it that no
    manifest lists (somebody else's) are kept. When the block raises, nothing is left of it, and ``parent/name`` is as
    it was.
    """
    parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(parent)
    with _staging(parent, name) as staging:
        try:
            yield staging
            if not (staging / name).is_dir():
                _move_up(staging, parent, name)
                shutil.rmtree(staging)
                return
            kept = _keep_files_of_others(parent / name, staging / name)
            manifest.write(staging / name, besides=kept)
            flush(staging / name)
            publish(staging, parent, name)
        except BaseException as error:
            complete = (staging / name / manifest.NAME).is_file() and not os.path.lexists(parent / name)
            # Interrupted while a complete folder gets its name: the next look for it goes on from there.
            if not _is_between(staging, parent, name) and (isinstance(error, OSError) or not complete):
                shutil.rmtree(staging, ignore_errors=True)
            raise


@contextmanager
def _staging(parent: Path, name: str) -> Iterator[Path]:
    """A new folder with its lock; the next one where somebody has tidied it away before it was locked."""
    while True:
        staging = Path(tempfile.mkdtemp(prefix=f"_{name}.saving-", dir=parent))
        with _locked(staging, wait=True):
            if staging.is_dir():
                yield staging
                return


def renew(folder: Path) -> None:
    """Takes what the script has done to a complete folder since it was saved into its manifest.

    Raises OSError or ValueError where it cannot be read or written; the manifest is then as it was.
    """
    if folder.is_dir() and manifest.renew(folder):
        flush(folder)


def publish(staging: Path, parent: Path, name: str) -> None:
    """Renames the complete folder ``staging/name`` to ``parent/name`` and takes the staging folder away."""
    final, old = parent / name, _old(staging, name)
    if os.path.lexists(final):
        os.rename(final, old)
    try:
        os.rename(staging / name, final)
    except OSError:
        _put_back(staging, parent, name)
        raise
    _flush_folder(parent)
    _move_up(staging, parent, name)
    shutil.rmtree(staging, ignore_errors=True)


def remove(folder: Path) -> None:
    """Removes a folder: whatever happens meanwhile, it is whole or not there under its name. Of a link, the link."""
    if folder.is_symlink():
        folder.unlink()
        return
    # Needs no space: there may be none.
    place = folder.rename(folder.parent / f"_{folder.name}.removing-{secrets.token_hex(4)}")
    shutil.rmtree(place, ignore_errors=True)


def finish_interrupted(parent: Path) -> list[str]:
    """Completes saves that were killed between their last file and their name; returns the names of the others.

    The names are those of checkpoints of which only a part was written. Nothing of them is used; what they were to
    replace is put back.
    """
    lost = []
    for staging, name in _leftovers(parent, _SAVING):
        with _locked(staging) as ours:
            if ours and (staging / name).is_dir() and not _finished(staging, parent, name):
                lost.append(name)
    return lost


def remove_leftovers(parent: Path) -> None:
    """Removes what killed processes left, after completing what can be completed."""
    finish_interrupted(parent)
    for folder, name in (*_leftovers(parent, _SAVING), *_leftovers(parent, _REMOVING)):
        with _locked(folder) as ours:
            if ours and not _is_between(folder, parent, name):
                shutil.rmtree(folder, ignore_errors=True)


def flush(folder: Path) -> None:
    """Forces every file under a folder, and the folders themselves, to the disk."""
    for place, _, names in os.walk(folder):
        for path in (os.path.join(place, name) for name in names):
            if os.path.isfile(path):  # else a pipe, or a link to nothing
                _flush_file(path)
        _flush_folder(Path(place))


def _leftovers(parent: Path, form: re.Pattern[str]) -> list[tuple[Path, str]]:
    """The folders with names of this form, each with the name of the checkpoint that it is about."""
    paths = sorted(path for path in parent.iterdir() if path.is_dir() and not path.is_symlink())
    return [(path, match[1]) for path in paths if (match := form.match(path.name))]


def _old(staging: Path, name: str) -> Path:
    """Where the folder is that a save replaces, while the new one gets its name."""
    return staging / f"{name}.old"


def _is_between(staging: Path, parent: Path, name: str) -> bool:
    """Whether both are here, the folder that is replaced and the new one, and neither has its name."""
    old_and_new = os.path.lexists(_old(staging, name)) and (staging / name).is_dir()
    return old_and_new and not os.path.lexists(parent / name)


def _put_back(staging: Path, parent: Path, name: str) -> None:
    if _is_between(staging, parent, name):
        os.rename(_old(staging, name), parent / name)


def _finished(staging: Path, parent: Path, name: str) -> bool:
    """Publishes a save that is complete; says whether it was, and could be: the file system may be read-only."""
    complete = manifest.is_kept(staging / name)
    try:
        if complete:
            publish(staging, parent, name)
        else:
            _put_back(staging, parent, name)
    except OSError:
        return False
    return complete


def _keep_files_of_others(final: Path, new: Path) -> set[str]:
    """Copies what the folder that is replaced holds and the new one lacks, and no save had written.

    Without a manifest that is all that no resume reads: of old weights in other files than the new ones, one of both
    would be loaded. A folder without the state of a trainer is no save: the script has written into it beforehand.
    """
    try:
        ours = manifest.listed(final)
    except ValueError:
        ours = None
    if not (final / manifest.NAME).exists() and not (final / inspection.STATE).exists():
        ours = {}
    kept = set()
    for path in sorted(final.rglob("*")):
        name = path.relative_to(final).as_posix()
        of_a_save = name == manifest.NAME or (inspection.is_read(name) if ours is None else name in ours)
        if path.is_file() and not of_a_save and not (new / name).exists():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, new / name)
            kept.add(name)
    return kept


def _move_up(staging: Path, parent: Path, name: str) -> None:
    """What a script has written beside its checkpoint, by the path that it was given, goes beside the final one."""
    for path in sorted(staging.rglob("*")):
        if path.is_file() and not path.is_relative_to(_old(staging, name)):
            target = parent / path.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)


@contextmanager
def _locked(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Holds the lock of a folder; gives False where somebody else holds it, or the file system knows no locks.

    Args:
        folder: the folder.
        wait: wait for somebody else.
    """
    with contextlib.ExitStack() as stack:
        try:
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
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
