"""One half of an autograd function out of a replacement, the other upstream's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def replaced(function: Any, replacement: ModuleType, half: str) -> Iterator[None]:
    """``half`` is "forward" or "backward"."""
    original = function.__dict__[half]
    setattr(function, half, staticmethod(getattr(replacement, half)))
    try:
        yield
    finally:
        setattr(function, half, original)
