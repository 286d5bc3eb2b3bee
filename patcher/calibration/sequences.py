"""What is allocated and freed to see which rules the MPS allocator follows. Data; imports no torch.

A step is ``NAME = LENGTH`` (a tensor of so many bytes), ``free NAME``, ``empty`` (`torch.mps.empty_cache`) or ``allow
LENGTH`` (`torch.mps.set_per_process_memory_fraction`, as the fraction that is this length). Lengths are sums of numbers
with K, M or G. What the steps tell apart is said beside them: docs/memory.md has the rules of both releases.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from patcher import environment

LONGEST = "longest buffer"
"""The case that finds the longest tensor that Metal takes, instead of a sequence."""

_BEYOND = "1G + 64M"
"""The soft limit of the sequences that go beyond it."""

_LENGTHS = (
    *("1", "256", "257", "4000", "1M - 256", "1M", "1M + 1"),  # multiples of 256; 8 MiB heaps up to 1 MiB
    *("6M + 1", "10M - 256", "10M - 1", "10M", "10M + 1", "20M + 1"),  # 32 MiB and 1 GiB heaps; the steps of 2.14
    *("300M", "512M - 256", "512M", "600M", "1G + 1"),  # heaps of their own, in multiples of 2 MiB
)

SEQUENCES: dict[str, tuple[str, ...]] = {
    "lengths": tuple(step for length in _LENGTHS for step in (f"a = {length}", "free a", "empty")),
    # 2.13 takes the shortest cached buffer, up to 32 MiB too long, as it is. 2.14 splits what is 1 MiB too long.
    "reuse": (
        *("a = 140M", "b = 120M", "free a", "free b", "c = 110M", "d = 108M", "free d", "e = 108M - 256", "f = 139M"),
        *("free c", "g = 119M + 256", "free g", "h = 60M", "i = 60M", "free e", "free f", "empty"),
    ),
    "small reuse": (
        *("a = 512", "free a", "b = 256", "c = 256", "free b", "free c", "d = 300", "e = 1M", "f = 600K", "free e"),
        *("g = 1M - 512K", "h = 400K", "free g", "i = 300K", "j = 212K", "empty"),
    ),
    # Where a tensor ends within a page of 16 KiB, 2.13 counts the room in its heap from the next page on.
    "pages": ("a = 1", *(f"{name} = 1M" for name in "bcdefgh"), "i = 1M - 256", "free b", "j = 1M - 16K"),
    # 2.14: a rest of 1 MiB is of use; a cached buffer that is hardly too long goes before a range that fits better.
    "rests": (
        *("a = 6M", "b = 8M", "free a", "c = 4M + 512K", "d = 1M + 256K", "e = 9M", "empty", "free b", "free c"),
        *("free d", "free e", "empty", "a = 5M + 512K", "b = 9M + 512K", "c = 9M + 512K", "d = 2M + 512K", "free a"),
        *("e = 5M", "f = 5M", "free c", "g = 3M", "h = 2M", "i = 4M"),
    ),
    # Which range is taken, what is left of it, when ranges side by side become one, when a heap is made.
    "ranges": (
        *("a = 6M", "b = 8M", "c = 8M", "free a", "free b", "d = 9M + 512K", "e = 9M", "free c", "f = 7M + 512K"),
        *("g = 5000000", "h = 4M", "i = 300", "free i", "j = 256", "free e", "free g", "k = 14M - 4M", "l = 15M"),
        *("m = 13M + 512K", "n = 14M", "empty", "free f", "free d", "empty"),
    ),
    "merging": (
        *("a = 100M", "b = 100M", "c = 100M", "d = 100M", "free a", "free c", "e = 180M", "free b", "f = 280M"),
        *("free d", "free e", "g = 390M", "free f", "free g", "h = 500M", "empty", "free h", "empty"),
    ),
    # 2.13 breaks a buffer up where no heap has room; its heap stays as it is.
    "breaking up": ("a = 1100M", "free a", "b = 64M", "c = 900M", "free b", "free c", "d = 512M", "e = 512M", "empty"),
    # 2.13 keeps what no batch needs any more, 2.14 the two longest.
    "varying lengths": tuple(
        step
        for length in range(20, 400, 76)
        for step in (f"a = {length}M", f"b = {length}M", "free a", "free b")
    ),
    # Heaps with something in them stay; of the others 2.13 gives back what was cached, 2.14 whole ones.
    "emptying": (
        *("a = 6M", "b = 6M", "c = 6M", "d = 6M", "e = 6M", "f = 6M", "free a", "free c", "empty", "g = 5M + 512K"),
        *("free b", "h = 12M", "free d", "free e", "empty", "free f", "free h", "empty", "free g", "empty"),
    ),
    # The buffer counts, not its heap; caches are given back before an allocation fails; what was refused left nothing.
    "hard limit": (
        *("allow 2G + 100M", "a = 512M", "b = 512M", "c = 512M", "d = 512M", "e = 200M", "f = 90M", "g = 50M"),
        *("free b", "h = 600M", "free c", "h = 900M", "free d", "h = 900M", "free a", "i = 700M", "j = 300M", "free f"),
        *("j = 300M", "free h", "free i", "k = 2G", "empty", "k = 2G + 10M", "k = 2G + 110M", "allow 0", "l = 1G"),
    ),
    # What goes back where nothing fits: 2.13's longest buffers, 2.14's oldest heaps.
    "giving back": (
        *("allow 2G + 100M", "a = 512M", "b = 600M", "c = 700M", "free a", "free b", "free c", "d = 800M", "free d"),
        *("e = 300M", "f = 20M", "free e", "free f", "g = 900M", "h = 300M"),
    ),
    # Heaps are made to measure beyond it; cached buffers that have waited long are given back.
    "soft limit": (
        *("a = 1G + 70M", "b = 20M", "c = 30M", "free b", "d = 18M", "free c", "free d", "e = 512M", "f = 512M"),
        *("g = 512M", "free e", "free f", "free g", "h = 600M", "i = 5M", "j = 256", "free h", "free a", "k = 300M"),
        *("empty", "free k", "l = 20M", "empty"),
    ),
    # 2.13 collects cached buffers, not the heaps that they were cut from; 2.14 whole heaps.
    "collecting": (
        *("a = 512M - 256", "b = 500M", "c = 1G", "free a", "free b", "d = 600M", "free d", "free c", "e = 1200M"),
        *("empty", "f = 300M", "free e", "g = 100M", "empty"),
    ),
    LONGEST: (),
}  # fmt: skip

_LIMITED = {"soft limit": {environment.LOW: _BEYOND}, "collecting": {environment.LOW: _BEYOND}}


def length_of(text: str) -> int:
    """Bytes of ``"1M + 256"``."""
    units = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
    terms = re.findall(r"([+-]?)\s*(\d+)([KMG]?)", text)
    return sum((-1 if sign == "-" else 1) * int(number) * units[unit] for sign, number, unit in terms)


def variables(case: str, device: Mapping[str, Any]) -> dict[str, str]:
    """The limits with which a case's process starts, as multiples of what the device recommends."""
    recommended = device["recommended_max_memory"]
    return {name: repr(length_of(text) / recommended) for name, text in _LIMITED.get(case, {}).items()}
