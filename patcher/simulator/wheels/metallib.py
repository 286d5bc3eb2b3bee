"""Names of the functions in a Metal library (``.metallib``), as torch's binary for macOS holds them.

The layout is Apple's, undocumented, and was read off torch's libraries: a header of fixed size says where the list of
functions lies; each entry is its length in bytes, then tags of four letters with their own length, ended by ``ENDT``.
"""

from __future__ import annotations

import struct

MAGIC = b"MTLB"
LIST = struct.Struct("<Q")
LIST_AT = 24
"""Where the header has the offset of the list of functions."""


class MetallibError(ValueError):
    """The bytes are no Metal library."""


def function_names(data: bytes) -> list[str]:
    """The functions' names, in the library's order. Raises MetallibError."""
    if data[:4] != MAGIC:
        raise MetallibError(f"expected {MAGIC!r}, found {data[:4]!r}")
    (at,) = LIST.unpack_from(data, LIST_AT)
    (number,) = struct.unpack_from("<I", data, at)
    at += 4
    names = []
    for _ in range(number):
        (length,) = struct.unpack_from("<I", data, at)
        names.append(_name(data[at + 4 : at + length]))
        at += length
    return names


def _name(entry: bytes) -> str:
    at = 0
    while (tag := entry[at : at + 4]) not in (b"ENDT", b""):
        (length,) = struct.unpack_from("<H", entry, at + 4)
        if tag == b"NAME":
            return entry[at + 6 : at + 6 + length].rstrip(b"\0").decode()
        at += 6 + length
    raise MetallibError("a function without a name")
