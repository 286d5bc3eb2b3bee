"""Which torch releases the corpora can be run for: those of which it is known what torch expects of a Mac."""

from __future__ import annotations

import importlib.metadata

from patcher.macs.mac import release_of


def installed() -> str:
    """The release of the torch that computes, whose databases are installed: ``"2.13"``."""
    return release_of(importlib.metadata.version("torch"))


def known() -> list[str]:
    """Every such release, oldest first."""
    return [installed()]
