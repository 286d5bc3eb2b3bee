"""Reads a 64-bit Mach-O library, as macOS loads it: its sections, its symbols, and the texts that its code names.

Formats: Apple's ``mach-o/loader.h`` and ``mach-o/nlist.h``; instructions: Arm's A64 reference (ADR, ADRP, ADD). Only
what arm64 libraries have is read; nothing is executed.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

MAGIC = 0xFEEDFACF
ARM64 = 0x0100000C
SEGMENT, SYMTAB = 0x19, 0x2
IN_SECTION, DEBUG = 0x0E, 0xE0
"""Bits of a symbol's type: it names a place in a section; it is a debugger's."""

HEADER = struct.Struct("<8I")
COMMAND = struct.Struct("<2I")
SEGMENT_64 = struct.Struct("<2I16s4Q4I")
SECTION_64 = struct.Struct("<16s16s2Q8I")
SYMBOLS = struct.Struct("<6I")
NLIST_64 = struct.Struct("<IBBHQ")


class MachOError(ValueError):
    """The bytes are no 64-bit Mach-O library for arm64."""


@dataclass(frozen=True)
class Section:
    """Part of a library: ``offset`` and ``size`` are bytes of the file, ``address`` is where it is loaded."""

    segment: str
    name: str
    address: int
    size: int
    offset: int


@dataclass(frozen=True)
class Function:
    """Code with a symbol: from ``address`` to before ``end``."""

    name: str
    address: int
    end: int


class Library:
    """A Mach-O library in memory."""

    def __init__(self, data: bytes) -> None:
        """Raises MachOError where the header is another."""
        if len(data) < HEADER.size or HEADER.unpack_from(data)[:2] != (MAGIC, ARM64):
            raise MachOError(f"expected a 64-bit Mach-O library for arm64, found {data[:8].hex(' ')}")
        self._data = data
        self.sections: list[Section] = []
        self._symbols = (0, 0, 0)
        """Offset and number of the symbols, and the offset of their names."""
        self._read_commands()

    def section(self, name: str, segment: str = "__TEXT") -> Section | None:
        """The section of this name, or None."""
        return next((each for each in self.sections if (each.segment, each.name) == (segment, name)), None)

    def content(self, section: Section) -> bytes:
        """The bytes of a section."""
        return self._data[section.offset : section.offset + section.size]

    @cached_property
    def functions(self) -> list[Function]:
        """What stands in ``__text``, by address. Of several names for one place the first stays."""
        code = self.section("__text")
        if code is None:
            return []
        number = self.sections.index(code) + 1
        places: dict[int, str] = {}
        for name, kind, section, address in self._each_symbol():
            if section == number and kind & IN_SECTION == IN_SECTION and not kind & DEBUG:
                places.setdefault(address, name)
        starts = sorted(places)
        ends = [*starts[1:], code.address + code.size]
        return [Function(places[start], start, end) for start, end in zip(starts, ends, strict=True)]

    @cached_property
    def texts(self) -> dict[int, str]:
        """The C strings of ``__cstring`` by address; those that are no UTF-8 are left out."""
        found: dict[int, str] = {}
        section = self.section("__cstring")
        if section is not None:
            address = section.address
            for raw in self.content(section).split(b"\0"):
                if raw and _is_text(raw):
                    found[address] = raw.decode()
                address += len(raw) + 1
        return found

    def named_texts(self, wanted: Callable[[str], bool]) -> dict[str, set[str]]:
        """By function, the texts whose address its code makes; only of functions whose symbol is ``wanted``."""
        code = self.section("__text")
        if code is None:
            return {}
        found: dict[str, set[str]] = {}
        for function in self.functions:
            if wanted(function.name):
                start = code.offset + function.address - code.address
                raw = self._data[start : start + function.end - function.address]
                named = found.setdefault(function.name, set())
                named.update(self.texts[each] for each in addresses_made(raw, function.address) if each in self.texts)
        return found

    def _read_commands(self) -> None:
        at = HEADER.size
        for _ in range(HEADER.unpack_from(self._data)[4]):
            kind, size = COMMAND.unpack_from(self._data, at)
            if kind == SEGMENT:
                self._read_sections(at)
            elif kind == SYMTAB:
                _, _, symbols, number, names, _ = SYMBOLS.unpack_from(self._data, at)
                self._symbols = (symbols, number, names)
            at += size

    def _read_sections(self, at: int) -> None:
        number = SEGMENT_64.unpack_from(self._data, at)[9]
        for index in range(number):
            place = at + SEGMENT_64.size + index * SECTION_64.size
            name, segment, address, size, offset = SECTION_64.unpack_from(self._data, place)[:5]
            self.sections.append(Section(_name(segment), _name(name), address, size, offset))

    def _each_symbol(self) -> Iterator[tuple[str, int, int, int]]:
        """Name, type, number of the section (from 1), address."""
        at, number, names = self._symbols
        for name, kind, section, _, address in NLIST_64.iter_unpack(self._data[at : at + number * NLIST_64.size]):
            start = names + name
            end = self._data.index(b"\0", start)
            yield self._data[start:end].decode(errors="replace"), kind, section, address


def addresses_made(code: bytes, address: int) -> Iterator[int]:
    """The addresses that A64 code makes of constants: by ADR, or by ADRP and an ADD to the same register.

    Args:
        code: instructions, four bytes each.
        address: of the first.
    """
    words = array("I", code)
    assert words.itemsize == 4
    pages: dict[int, int] = {}
    for index, word in enumerate(words):
        register = word & 31
        if word & 0x1F000000 == 0x10000000:
            here = address + 4 * index
            offset = _signed((word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3, 21)
            if word >> 31:
                pages[register] = (here & ~0xFFF) + (offset << 12)
            else:
                yield here + offset
            continue
        source = word >> 5 & 31
        if word & 0xFFC00000 == 0x91000000 and source in pages:
            yield pages[source] + (word >> 10 & 0xFFF)
        pages.pop(register, None)  # most instructions write to it


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def _name(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode()


def _is_text(raw: bytes) -> bool:
    try:
        return raw.decode().isprintable() or b"\n" in raw or b"\t" in raw
    except UnicodeDecodeError:
        return False
