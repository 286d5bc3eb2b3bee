"""Releases that are made for a test: wheels and sdists of a few lines, and a catalogue that is for them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patcher.drift.archives import Release, read
from patcher.drift.names import Texts
from patcher.engine.model import Patch, Substitute, Upstream
from tests.contract.drift import Release as Fake
from tests.contract.drift import changes

ROOTS = ("unsloth", "unsloth_zoo")
BUILT = (2026, 10, 27, 12, 0, 0)

_TEXT: dict[str, Any] = {
    "distribution": "unsloth",
    "reviewed": "==2026.10.9",
    "why": "w",
    "upstream": Upstream("o/n", "p", "s"),
    "until": "u",
    "needed_for": None,
}


def metadata(name: str, version: str, *requires: str) -> str:
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    return "\n".join([*lines, *(f"Requires-Dist: {requirement}" for requirement in requires), "", "The description."])


def wheel(folder: Path, name: str, version: str, files: Mapping[str, str], *requires: str) -> Path:
    """``files`` are the texts by their path in the wheel."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        about = {"METADATA": metadata(name, version, *requires), "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"}
        told = {f"{name}-{version}.dist-info/{file}": text for file, text in about.items()}
        for file, text in {**files, **told}.items():
            archive.writestr(zipfile.ZipInfo(file, BUILT), text)
    return path


def sdist(folder: Path, name: str, version: str, files: Mapping[str, str]) -> Path:
    """The same as a ``.tar.gz``."""
    path = folder / f"{name}-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file, text in {**files, "PKG-INFO": metadata(name, version)}.items():
            info = tarfile.TarInfo(f"{name}-{version}/{file}")
            info.size, info.mtime = len(text.encode()), 1793102400
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def expected(package: str, release: Fake | None = None) -> dict[str, str]:
    """The texts of a package as the changes expect it, or as a faked release of all libraries has it."""
    release = release or Fake.expected(changes())
    modules = [name for name in release.modules if name.startswith(f"{package}.")]
    return {f"{name.replace('.', '/')}/__init__.py": release.source(name) for name in modules}


def release(folder: Path, files: Mapping[str, str]) -> Release:
    """A release of unsloth with these texts."""
    return read(wheel(folder, "unsloth", "2026.11.1", files), ROOTS)


def texts(folder: Path, files: Mapping[str, str]) -> Texts:
    return Texts([release(folder, files)])


def patch(target: str, expects: str | None = "(a, b=1)", **more: Any) -> Patch:
    return Patch(**{**_TEXT, "target": target, "replacement": "r:r", "expects": expects, **more})


def substitute(module: str, *constants: str, **more: Any) -> Substitute:
    return Substitute(**{**_TEXT, "module": module, "constants": dict.fromkeys(constants, 1), **more})
