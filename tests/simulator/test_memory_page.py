"""The tables of docs/memory.md are those of the data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from patcher.macs.mac import CHIPS, GIB, every_mac, max_buffer_bytes, parse, recommended_max_bytes, working_set

PAGE = Path(__file__).parents[2] / "docs" / "memory.md"


def limits() -> list[str]:
    """Memory, working set before and from macOS 26, limit at torch's default, longest buffer."""
    lines = [
        "| Memory | Recommended maximum, macOS 15 | macOS 26 | Limit at 1.7, macOS 15 | Longest buffer, macOS 15 |",
        "|---|---|---|---|---|",
    ]
    for gigabytes in sorted({mac.memory_bytes // GIB for mac in every_mac()}):
        memory = gigabytes * GIB
        before, after = (
            f"{'' if gigabytes in working_set(memory, macos).observed else '~'}"
            f"{recommended_max_bytes(memory, macos) / GIB:.2f} GiB"
            for macos in ((15, 5), (26, 0))
        )
        limit = int(1.7 * recommended_max_bytes(memory)) / GIB
        longest = max_buffer_bytes(memory) / GIB
        lines.append(f"| {gigabytes} GB | {before} | {after} | {limit:.2f} GiB | {longest:.2f} GiB |")
    return lines


def macs() -> list[str]:
    """One line for each GPU that is sold."""
    lines = [
        "| Chip | GPU cores | Memory, GB | GB/s | TFLOPS fp32 | TFLOPS fp16 matrices |",
        "|---|---|---|---|---|---|",
    ]
    for name, chip in CHIPS.items():
        for variant in chip.variants:
            mac = parse(f"{name} {variant.gpu_cores}-core")
            names = dict(mac.estimated)
            clock = "~" if "clock_mhz" in names else ""
            half = clock or ("~" if "fp16_factor" in names else "")
            sizes = ("~" if "memory_gb" in names else "") + ", ".join(str(size) for size in variant.memory_gb)
            bandwidth = ("~" if "bandwidth_gbs" in names else "") + f"{mac.bandwidth / 1e9:g}"
            rates = f"{clock}{mac.tflops_fp32 / 1e12:.1f} | {half}{mac.tflops_fp16 / 1e12:.1f}"
            lines.append(f"| {name} | {variant.gpu_cores} | {sizes} | {bandwidth} | {rates} |")
    return lines


@pytest.mark.parametrize(("name", "expected"), [("limits", limits()), ("macs", macs())], ids=["limits", "macs"])
def test_the_page_has_the_table(name: str, expected: list[str]) -> None:
    """Line by line; what belongs there is printed where it differs."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- end -->", PAGE.read_text(), re.S)
    assert found is not None
    assert found[1].splitlines() == expected, "\n" + "\n".join(expected)
