"""Which Macs can be simulated: chip, GPU cores and memory, from a text such as ``"M3 Max 36GB"``. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from patcher.environment import value_of
from patcher.errors import InvalidSwitch, compose
from patcher.macs.figures import CHIPS, LANES, SOURCES, TORCH, WORKING_SET, WORKING_SET_26, Chip, Variant, WorkingSet

__all__ = [
    "CHIPS",
    "DEFAULT",
    "DEFAULT_TORCH",
    "GIB",
    "MACOS",
    "TORCH",
    "MacProfile",
    "default_torch",
    "every_mac",
    "max_buffer_bytes",
    "parse",
    "release_of",
]

GIB = 2**30

PAGE = 2**14
"""A page of memory on Apple silicon."""

DEFAULT = "M3 Max 36GB"
"""What ``UNSLOTH_SIMULATE_MAC=1`` stands for."""

MACOS = (15, 5)
"""The macOS that a simulated Mac answers with, unless its chip needs a newer one."""

DEFAULT_TORCH = TORCH["2.14"]
"""What ``requirements/macos.txt`` installs."""

VARIABLE = "PATCHER_SIMULATE_TORCH"
"""Names the torch of every simulated Mac whose own text names none."""

_YES = {"1", "true", "yes", "on"}
_CHIP = re.compile(r"(?:apple\s+)?(?P<family>m\d+)(?:[\s-]*(?P<tier>pro|max|ultra)\b)?", re.IGNORECASE)
_CORES = re.compile(r"(?P<cores>\d+)[\s-]*cores?(?:\s+gpu)?\b", re.IGNORECASE)
_TORCH = re.compile(r",?\s*\btorch[\s=]*(?P<version>[\w.+]*)", re.IGNORECASE)
_MEMORY = re.compile(r"(?P<memory>\d+)\s*(?:gb?|gib)?", re.IGNORECASE)


@dataclass(frozen=True)
class MacProfile:
    """A Mac as far as training on it is concerned.

    Attributes:
        name: the short form that `parse` reads, e.g. ``"M3 Max 36GB"`` or ``"M1 8GB, torch 2.13"``.
        chip: what torch names the device, e.g. ``"Apple M3 Max"``.
        gpu_cores: number of GPU cores.
        memory_bytes: unified memory.
        macos: major and minor version.
        torch: version of the torch that the Mac has, one of `TORCH`.
        bandwidth: memory bandwidth in bytes per second.
        tflops_fp32: peak rate of fp32 arithmetic, in FLOP per second.
        tflops_fp16: peak rate of fp16 and bf16 matrix products, in FLOP per second.
        estimated: which figures are estimates: name to what the estimate rests on.
        sources: where the figures come from.
    """

    name: str
    chip: str
    gpu_cores: int
    memory_bytes: int
    macos: tuple[int, int]
    torch: str
    bandwidth: float
    tflops_fp32: float
    tflops_fp16: float
    estimated: tuple[tuple[str, str], ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def recommended_max_bytes(self) -> int:
        """What ``torch.mps.recommended_max_memory()`` answers, in bytes."""
        return recommended_max_bytes(self.memory_bytes, self.macos)


def recommended_max_bytes(memory_bytes: int, macos: tuple[int, int] | None = MACOS) -> int:
    """The GPU's share of a Mac's memory: Metal's ``recommendedMaxWorkingSetSize``, in whole pages.

    Two thirds below 36 GB and three quarters from there on; other shares from macOS 26 on
    (`patcher.macs.figures.WORKING_SET`, which names where each value was seen).
    """
    numerator, denominator = working_set(memory_bytes, macos).share
    return -(-memory_bytes * numerator // (denominator * PAGE)) * PAGE


def working_set(memory_bytes: int, macos: tuple[int, int] | None = MACOS) -> WorkingSet:
    """The entry of the table that applies to this memory."""
    table = WORKING_SET_26 if macos is not None and macos >= (26, 0) else WORKING_SET
    return [entry for entry in table if entry.from_gb * GIB <= memory_bytes][-1]


def max_buffer_bytes(memory_bytes: int, macos: tuple[int, int] | None = MACOS) -> int:
    """Metal's ``maxBufferLength``: three quarters of the working set, in whole pages.

    It is exactly that wherever MLX's ``device_info`` was seen with both: M1 16 GB (8589934592), M3 Pro 36 GB
    (22613000192), M4 Pro 48 GB (30150672384), M5 Max 64 and 128 GB (41747087360, 86586540032), M3 Ultra 256 GB
    (167503724544).
    """
    return recommended_max_bytes(memory_bytes, macos) * 3 // (4 * PAGE) * PAGE


def default_torch() -> str:
    """The torch of a simulated Mac of which none is named: ``PATCHER_SIMULATE_TORCH``, else `DEFAULT_TORCH`.

    Raises:
        InvalidSwitch: the variable names one that is not known.
    """
    named = value_of(VARIABLE)
    return _version(named, f"{VARIABLE}={named}", f"{VARIABLE}={next(reversed(TORCH))}") if named else DEFAULT_TORCH


def parse(text: str, torch: str | None = None) -> MacProfile:
    """The Mac that a text names.

    Args:
        text: a chip with or without its number of GPU cores and its memory in GB: ``"M3 Max 36GB"``, ``"apple m1"``,
            ``"M2 Pro, 32 GB"``, ``"M3 Max 30-core 96GB"``. Where no cores are given, the largest GPU that is sold with
            this memory; where no memory is given, the smallest. ``"1"`` is an M3 Max with 36 GB. Its torch may follow:
            ``"M1 8GB, torch 2.13"``, ``"torch 2.13"``.
        torch: the version where the text names none; None for `default_torch`.

    Raises:
        InvalidSwitch: no such chip, Apple does not sell it with that many cores or that much memory, or that torch is
            not known.
    """
    rest, version = _split_torch(text)
    wanted = DEFAULT if rest.lower() in _YES or (version and not rest) else rest
    head = _CHIP.match(wanted)
    name = _chip_name(head) if head else ""
    rest = re.sub(r"[(),]", " ", wanted[head.end() :]) if head else ""
    found_cores = _CORES.search(rest)
    if found_cores:
        rest = rest[: found_cores.start()] + rest[found_cores.end() :]
    found_memory = _MEMORY.fullmatch(rest.strip())
    if name not in CHIPS or (rest.strip() and found_memory is None):
        raise InvalidSwitch(
            compose(
                "there is no such Mac to simulate",
                expected=f"1, or a chip, its GPU cores and its memory such as {DEFAULT!r} or 'M3 Max 30-core 96GB'; "
                f"chips: {', '.join(CHIPS)}",
                found=repr(text),
                run="set UNSLOTH_SIMULATE_MAC (or simulate=) to one of these",
            )
        )
    chip = CHIPS[name]
    cores = int(found_cores["cores"]) if found_cores else None
    variants = [variant for variant in chip.variants if cores in (None, variant.gpu_cores)]
    if not variants:
        sold = [f"{variant.gpu_cores}" for variant in chip.variants]
        raise _not_sold(f"no {name} has {cores} GPU cores", sold, text, f"{name} {sold[-1]}-core")
    memory = int(found_memory["memory"]) if found_memory else min(variant.memory_gb[0] for variant in variants)
    variants = [variant for variant in variants if memory in variant.memory_gb]
    if not variants:
        raise _memory_not_sold(name, chip, cores, memory, text)
    return _profile(name, chip, variants[-1], memory, version or torch or default_torch())


def release_of(version: str) -> str:
    """``"2.14"`` of ``"2.14.1+cpu"``."""
    return ".".join(version.split("+")[0].split(".")[:2])


def _split_torch(text: str) -> tuple[str, str | None]:
    """What a text says besides torch, and the version of torch that it names."""
    found = _TORCH.search(text)
    if found is None:
        return text.strip(), None
    version = _version(found["version"], repr(text), f"'{DEFAULT}, torch {next(reversed(TORCH))}'")
    return (text[: found.start()] + text[found.end() :]).strip(" ,"), version


def _version(named: str, text: str, instead: str) -> str:
    """The version of a release that is known, or a version itself. Raises InvalidSwitch for another."""
    if named not in (*TORCH, *TORCH.values()):
        raise InvalidSwitch(
            compose(
                "a simulated Mac cannot have this torch",
                expected=f"torch {', '.join(TORCH)}",
                found=text,
                run=f"use for instance {instead}",
            )
        )
    return TORCH[release_of(named)]


def every_mac() -> list[MacProfile]:
    """Every combination of chip, GPU and memory."""
    return [
        _profile(name, chip, variant, memory, default_torch())
        for name, chip in CHIPS.items()
        for variant in chip.variants
        for memory in variant.memory_gb
    ]


def _profile(name: str, chip: Chip, variant: Variant, memory: int, torch: str) -> MacProfile:
    rate = variant.gpu_cores * LANES * 2 * chip.clock_mhz * 1e6
    macos = MACOS if chip.first_macos <= MACOS[0] else (chip.first_macos, 0)
    estimated = {**chip.estimated, **variant.estimated}
    if memory not in working_set(memory * GIB, macos).observed:
        estimated["recommended_max_bytes"] = "the share of the next smaller memory for which it was seen"
    usual = [other for other in chip.variants if memory in other.memory_gb][-1]
    cores = "" if usual is variant else f" {variant.gpu_cores}-core"
    other = "" if torch == default_torch() else f", torch {release_of(torch)}"
    return MacProfile(
        name=f"{name}{cores} {memory}GB{other}",
        chip=f"Apple {name}",
        gpu_cores=variant.gpu_cores,
        memory_bytes=memory * GIB,
        macos=macos,
        torch=torch,
        bandwidth=variant.bandwidth_gbs * 1e9,
        tflops_fp32=rate,
        tflops_fp16=rate * chip.fp16_factor,
        estimated=tuple(sorted(estimated.items())),
        sources=tuple(SOURCES[key] for key in (chip.source, chip.clock_source, "lanes")),
    )


def _memory_not_sold(name: str, chip: Chip, cores: int | None, memory: int, text: str) -> InvalidSwitch:
    variants = [variant for variant in chip.variants if cores in (None, variant.gpu_cores)]
    sizes = sorted({size for variant in variants for size in variant.memory_gb})
    which = name if cores is None else f"{name} with {cores} GPU cores"
    use = f"{name} {sizes[-1]}GB" if cores is None else f"{name} {cores}-core {sizes[-1]}GB"
    return _not_sold(f"no {which} has {memory} GB of memory", [f"{size} GB" for size in sizes], text, use)


def _not_sold(problem: str, sold: list[str], text: str, use: str) -> InvalidSwitch:
    return InvalidSwitch(
        compose(problem, expected=f"one of {', '.join(sold)}", found=repr(text), run=f"use for instance {use!r}")
    )


def _chip_name(match: re.Match[str]) -> str:
    tier = match["tier"]
    return match["family"].upper() + (f" {tier.capitalize()}" if tier else "")
