"""The list of a checkpoint's files with their sizes and checksums: its presence says that the save came to its end.

CRC-32, because the danger is a truncated copy or a flipped bit, not forgery: it finds every flip of up to 32
neighbouring bits and misses one in 2^32 others, and it is computed faster than a disk reads.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

NAME = "checkpoint_manifest.json"
UNREADABLE = (OSError, ValueError, RecursionError)
"""What reading a manifest raises that a script has overwritten or a disk has lost."""
_FORMAT = 1
_CHUNK = 8 * 2**20


def write(folder: Path, besides: Collection[str] = ()) -> None:
    """Lists the files under ``folder``, besides some, in ``folder/checkpoint_manifest.json``. A save's last file."""
    files = {name: _entry(path) for name, path in _files(folder).items() if name not in besides}
    (folder / NAME).write_text(_text(files, besides), encoding="utf-8")


def renew(folder: Path) -> bool:
    """Lists what has been written, removed or added since the manifest was; says whether there was anything.

    What was beside the manifest's files then stays so. Files that have not changed since are not read again.
    """
    content = _content(folder)
    if content is None:
        return False
    since = (folder / NAME).stat().st_ctime_ns
    before, besides = content["files"], content.get("besides", [])
    now = {
        name: before[name] if name in before and path.stat().st_ctime_ns < since else _entry(path)
        for name, path in _files(folder).items()
        if name not in besides
    }
    if now == before:
        return False
    beside = folder / f"{NAME}.new"
    try:
        beside.write_text(_text(now, besides), encoding="utf-8")
        os.replace(beside, folder / NAME)
    finally:
        beside.unlink(missing_ok=True)
    return True


def _files(folder: Path) -> dict[str, Path]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {name: path for path in paths if (name := path.relative_to(folder).as_posix()) != NAME}


def _entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "crc32": f"{checksum(path):08x}"}


def _text(files: dict[str, Any], besides: Collection[str]) -> str:
    return json.dumps({"format": _FORMAT, "files": files, "besides": sorted(besides)}, indent=1) + "\n"


def listed(folder: Path) -> dict[str, Any] | None:
    """The files that the manifest names; None where there is none. Raises ValueError where it cannot be read."""
    content = _content(folder)
    if content is None:
        return None
    files: dict[str, Any] = content["files"]
    return files


def _content(folder: Path) -> dict[str, Any] | None:
    try:
        content: Any = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if not isinstance(content, dict) or content.get("format") != _FORMAT or not isinstance(content.get("files"), dict):
        raise ValueError(f"{NAME} is not in format {_FORMAT}")
    if not all(isinstance(entry, dict) and {"bytes", "crc32"} <= entry.keys() for entry in content["files"].values()):
        raise ValueError(f"{NAME} names a file without its size and checksum")
    return content


def is_kept(folder: Path) -> bool:
    """Whether the folder has a manifest, and all the files that it lists, as they were saved."""
    try:
        files = listed(folder)
    except UNREADABLE:
        return False
    return files is not None and not differences(folder, files)


def differences(folder: Path, files: dict[str, Any]) -> list[str]:
    """In which ways the folder's files are not those of a manifest, given by their names, with slashes."""
    found = (_difference(folder / name, entry, name) for name, entry in files.items())
    return [difference for difference in found if difference is not None]


def _difference(path: Path, entry: dict[str, Any], name: str) -> str | None:
    if not path.is_file():
        return f"{name} is missing"
    size = path.stat().st_size
    if size != entry["bytes"]:
        return f"{name} has {size} bytes instead of {entry['bytes']}"
    try:
        found = f"{checksum(path):08x}"
    except OSError as error:
        return f"{name} cannot be read: {error}"
    if found != entry["crc32"]:
        return f"{name} has other content than was saved: its checksum differs"
    return None


def checksum(path: Path) -> int:
    """CRC-32 of a file's content. A file that has not changed since is not read again."""
    status = os.stat(path)
    return _checksum(str(path), status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _checksum(path: str, inode: int, size: int, mtime_ns: int) -> int:
    value = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return value
