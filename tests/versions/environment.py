"""The libraries of a file of pins, beside those that are installed: what differs from these, a folder for each package.

The folders are shared by all files, so that a release costs only what no other one has had.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.utils import canonicalize_name

PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
PIP += ["--no-deps", "--no-compile", "--only-binary", ":all:"]


def path(pins: dict[str, str], folder: Path) -> list[str]:
    """What comes first on ``sys.path`` for these versions; installs what is not there.

    Raises:
        subprocess.CalledProcessError: pip cannot have one of them; its words are in ``stderr``.
    """
    here = {canonicalize_name(one.name): one.version for one in importlib.metadata.distributions()}
    return [str(_installed(name, version, folder)) for name, version in pins.items() if here.get(name) != version]


def _installed(name: str, version: str, folder: Path) -> Path:
    """The folder of one package, which is there complete or not at all."""
    target = folder / f"{name}-{version}"
    if not target.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".installing-") as scratch:
            what = ["--target", f"{scratch}/done", f"{name}=={version}"]
            subprocess.run([*PIP, *what], check=True, capture_output=True, text=True)
            os.replace(f"{scratch}/done", target)
    return target
