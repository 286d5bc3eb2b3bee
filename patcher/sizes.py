"""Bytes for people."""

from __future__ import annotations

UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
"""The units of a size, the smallest first; the words are those of torch's out-of-memory errors."""


def size(count: float) -> str:
    """``"1.25 GiB"``: two decimals, or none where there are none."""
    for unit, factor in reversed(UNITS.items()):
        if abs(count) >= factor > 1:
            return f"{count / factor:.{0 if count % factor == 0 else 2}f} {unit}"
    return f"{count:.0f} bytes"
