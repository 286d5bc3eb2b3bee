"""What holds on this machine alone: its GPU, macOS and torch, this package, and variables that change numbers."""

from __future__ import annotations

import functools
import hashlib
import platform
from pathlib import Path

import torch

from patcher import environment

PACKAGE = Path(environment.__file__).parent
"""What every variant of an op and every shader depends on, beside the machine: the sources, and what is changed of
torch."""

PREFIXES = ("PYTORCH_MPS_", "MTL_")
NAMES = frozenset(("PATCHER_WITHOUT", "PATCHER_SIMULATE_FAULTS", "PATCHER_SIMULATE_TORCH", "UNSLOTH_SIMULATE_MAC"))
"""Variables that may change numbers: torch's fast mathematics, Metal's debugging, changes and machines; the limits of
torch's allocator do not."""


def key(*parts: str) -> str:
    """A name for what holds for these surroundings, and for what ``parts`` say besides."""
    digest = hashlib.sha256(package())
    for part in (*machine(), *variables(), *parts):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:32]


def machine() -> tuple[str, str, str]:
    """The GPU, macOS and torch."""
    return torch.backends.mps.get_name(), platform.platform(), torch.__version__


def variables() -> list[str]:
    """Those that are set, with their values."""
    found = environment.snapshot().items()
    return sorted(
        f"{name}={value}"
        for name, value in found
        if name in NAMES or (name.startswith(PREFIXES) and not name.endswith("_WATERMARK_RATIO"))
    )


@functools.cache
def package() -> bytes:
    """A digest of every file of this package."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(PACKAGE)}\0".encode() + path.read_bytes() + b"\0")
    return digest.digest()
