"""Releases from the index that pip is set up for, into the cache folder. Only wheels: an sdist would run its setup."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from packaging.version import InvalidVersion, Version

from patcher import environment
from patcher.drift import archives
from patcher.drift.archives import Release
from patcher.errors import ReleaseUnreadable, compose

_ANY_PYTHON = "--ignore-requires-python"
"""Nothing of a release is run, so that it does not matter which Python it is for."""


@cache
def versions(name: str) -> tuple[Version, ...]:
    """The final releases that the index has, the newest first.

    Raises:
        ReleaseUnreadable: pip is missing, or reaches no index that has the library.
    """
    printed = _pip("the releases cannot be listed", name, "index", "versions", _ANY_PYTHON, name)
    listed = next((line for line in printed.splitlines() if line.startswith("Available versions:")), "")
    found = (_parsed(text.strip()) for text in listed.partition(":")[2].split(","))
    final = sorted((version for version in found if version is not None and not version.is_prerelease), reverse=True)
    if not final:
        raise _refused("the index has no release", name, printed.strip())
    return tuple(final)


def release(name: str, version: Version, roots: Iterable[str]) -> Release:
    """One release, from the cache folder or the index.

    Raises:
        ReleaseUnreadable: it is not in the index, the index cannot be reached, or the folder cannot be written.
    """
    roots = frozenset(roots)
    kept = environment.cache_folder() / "releases" / f"{name}-{version}.zip"
    if not kept.exists():
        try:
            _fetch(name, version, roots, kept)
        except OSError as error:
            raise ReleaseUnreadable(
                compose(
                    "the release cannot be kept",
                    target=str(kept),
                    found=f"{type(error).__name__}: {error}",
                    left="nothing was written",
                    run="make room there, or set PATCHER_CACHE to another folder",
                )
            ) from error
    return archives.read(kept, roots)


def _fetch(name: str, version: Version, roots: frozenset[str], kept: Path) -> None:
    """Puts the Python files of a wheel into ``kept``, which is there complete or not at all."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".fetching-") as folder:
        only = ("--no-deps", "--only-binary", ":all:", _ANY_PYTHON)
        wanted = f"{name}=={version}"
        _pip("the release cannot be fetched", wanted, "download", "--quiet", *only, "--dest", folder, wanted)
        wheel = next(Path(folder).glob("*.whl"))
        archives.write(Path(folder) / kept.name, wheel, roots)
        os.replace(Path(folder) / kept.name, kept)


def _pip(headline: str, wanted: str, *arguments: str) -> str:
    """What pip prints. Raises ReleaseUnreadable with its own last error where it fails."""
    command = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise _refused(headline, wanted, _reason(done.stderr) or f"pip ended with {done.returncode}")
    return done.stdout


def _refused(headline: str, wanted: str, found: str) -> ReleaseUnreadable:
    return ReleaseUnreadable(
        compose(
            headline,
            target=wanted,
            found=found,
            left="nothing was written",
            run="`python -m pip index versions` lists what there is; `python -m patcher drift WHEEL` reads a file",
        )
    )


def _reason(said: str) -> str:
    """The last line of pip's with an error; not the one that lists every version that there is."""
    errors = [line.partition("ERROR:")[2].strip() for line in said.splitlines() if "ERROR:" in line]
    last = (errors or said.strip().splitlines() or [""])[-1]
    return f"{last}: no index that could be reached has the library" if "(from versions: none)" in said else last


def _parsed(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None
