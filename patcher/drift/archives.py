"""A release of a library as its Python texts, out of a wheel, an sdist, or what is installed."""

from __future__ import annotations

import importlib.metadata
import shlex
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timezone
from email.message import Message
from email.parser import BytesParser
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from patcher.errors import ReleaseUnreadable, compose

_BROKEN = (OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError, RuntimeError, ValueError)
"""What opening and reading a damaged, encrypted or foreign file raises."""

_OLDEST = 1981
"""Files of an earlier year have a date that says nothing: zip files begin with 1980, others with 1970."""


@dataclass(frozen=True)
class Module:
    """One file.

    Attributes:
        text: as it stands in the release.
        package: the package that relative imports start from.
    """

    text: bytes
    package: str


@dataclass(frozen=True)
class Release:
    """One release of one library.

    Attributes:
        name: the distribution's, in its canonical form.
        version: its version.
        date: of its newest file, which is the day on which it was built; None where that is unknown.
        requires: what it depends on, as its metadata say.
        modules: its Python files by the dotted name that they are imported under.
    """

    name: str
    version: Version
    date: date | None
    requires: tuple[str, ...]
    modules: Mapping[str, Module]


@dataclass(frozen=True)
class _Member:
    path: str
    changed: date | None
    content: bytes


def read(path: Path, roots: Iterable[str]) -> Release:
    """The release in a wheel or an sdist.

    Args:
        path: ``*.whl``, ``*.zip`` or ``*.tar.*``.
        roots: the top-level packages that are of interest.

    Raises:
        ReleaseUnreadable: there is no such file, it is damaged, or it is no release.
    """
    opened = _of_a_zip if path.suffix in (".whl", ".zip") else _of_a_tar
    try:
        return _release(list(opened(path, frozenset(roots))))
    except _BROKEN as error:
        raise ReleaseUnreadable(
            compose(
                "the release cannot be read",
                target=str(path),
                expected="a wheel or an sdist, complete",
                found=f"{type(error).__name__}: {error}",
                left="the file was left as it is",
                run=f"rm {shlex.quote(str(path))}, and get it again" if path.exists() else "give the name of a file",
            )
        ) from error


def installed(name: str, roots: Iterable[str]) -> Release | None:
    """What is installed of a library, read like a release; None where its files cannot be told."""
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    texts = {str(file): Path(str(file.locate())) for file in distribution.files or () if _is_wanted(str(file), roots)}
    if not texts:
        return None
    requires = tuple(distribution.requires or ())
    modules = _modules({path: file.read_bytes() for path, file in texts.items()})
    return Release(canonicalize_name(name), Version(distribution.version), None, requires, modules)


def write(path: Path, wheel: Path, roots: Iterable[str]) -> None:
    """Copies from a wheel what `read` reads of it into a zip file: wheels have 70 MB of other files.

    Raises:
        ReleaseUnreadable, OSError: the wheel is damaged; the file cannot be written.
    """
    read(wheel, roots)
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            if _is_metadata(info.filename) or _is_wanted(info.filename, roots):
                target.writestr(info, source.read(info), zipfile.ZIP_DEFLATED)


def _of_a_zip(path: Path, roots: frozenset[str]) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if _is_metadata(info.filename) or _is_wanted(info.filename, roots):
                yield _Member(info.filename, _day(*info.date_time[:3]), archive.read(info))


def _day(year: int, month: int, day: int) -> date | None:
    """None for what archives carry that are built to be the same every time."""
    try:
        return date(year, month, day) if year >= _OLDEST else None
    except ValueError:
        return None


def _of_a_tar(path: Path, roots: frozenset[str]) -> Iterator[_Member]:
    with tarfile.open(path) as archive:
        for info in archive:
            name = info.name.partition("/")[2].removeprefix("src/")
            content = archive.extractfile(info) if info.isfile() else None
            if content is not None and (name == "PKG-INFO" or _is_wanted(name, roots)):
                changed = datetime.fromtimestamp(info.mtime, timezone.utc)
                yield _Member(name, _day(changed.year, changed.month, changed.day), content.read())


def _is_metadata(path: str) -> bool:
    folder, _, name = path.partition("/")
    return folder.endswith(".dist-info") and name == "METADATA"


def _is_wanted(path: str, roots: Iterable[str]) -> bool:
    parts = PurePosixPath(path).parts
    return path.endswith(".py") and parts[0].removesuffix(".py") in roots


def _release(members: list[_Member]) -> Release:
    about = next((m.content for m in members if _is_metadata(m.path) or m.path == "PKG-INFO"), None)
    if about is None:
        raise ValueError("it has no metadata")
    metadata: Message = BytesParser().parsebytes(about, headersonly=True)
    texts = {member.path: member for member in members if member.path.endswith(".py")}
    days = [member.changed for member in texts.values() if member.changed is not None]
    return Release(
        canonicalize_name(str(metadata["Name"])),
        _version(str(metadata["Version"])),
        max(days, default=None),
        tuple(str(line) for line in metadata.get_all("Requires-Dist", [])),
        _modules({path: member.content for path, member in texts.items()}),
    )


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion as error:
        raise ValueError(f"its metadata name no version: {error}") from error


def _modules(texts: Mapping[str, bytes]) -> dict[str, Module]:
    found = {}
    for path, text in texts.items():
        *folders, file = PurePosixPath(path).with_suffix("").parts
        package = ".".join(folders)
        found[package if file == "__init__" else ".".join([*folders, file])] = Module(text, package)
    return found
