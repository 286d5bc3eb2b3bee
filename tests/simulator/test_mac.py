"""Reading which Mac to simulate."""

from __future__ import annotations

import subprocess
import sys

import pytest

from patcher.errors import InvalidSwitch
from patcher.mac import CHIPS, parse


@pytest.mark.parametrize(
    ("text", "chip", "cores", "gigabytes"),
    [
        ("1", "Apple M3 Max", 40, 36),
        ("M3 Max 36GB", "Apple M3 Max", 40, 36),
        ("apple m2 pro, 32 gb", "Apple M2 Pro", 19, 32),
        ("m1", "Apple M1", 8, 8),
        ("M2-Ultra 192", "Apple M2 Ultra", 76, 192),
        ("  M4 Pro 48 GB ", "Apple M4 Pro", 20, 48),
    ],
)
def test_text_names_a_mac(text: str, chip: str, cores: int, gigabytes: int) -> None:
    """Chip, cores and memory; the recommended maximum is three quarters of it."""
    mac = parse(text)
    assert (mac.chip, mac.gpu_cores, mac.memory_bytes) == (chip, cores, gigabytes * 2**30)
    assert mac.recommended_max_bytes == gigabytes * 2**30 * 3 // 4
    assert parse(mac.name) == mac


@pytest.mark.parametrize("text", ["", "M9", "Intel", "M3 Max 36GB extra", "0", "M4 Ultra"])
def test_unknown_macs_are_refused_with_the_list(text: str) -> None:
    """The message lists every chip."""
    with pytest.raises(InvalidSwitch) as caught:
        parse(text)
    assert all(chip in str(caught.value) for chip in CHIPS)


def test_a_memory_that_is_not_sold_is_refused() -> None:
    """The message lists the sizes of that chip."""
    with pytest.raises(InvalidSwitch, match="36 GB, 48 GB, 64 GB, 96 GB, 128 GB"):
        parse("M3 Max 37GB")


def test_profiles_need_no_torch() -> None:
    """Reading a profile and importing the simulator's API import no torch."""
    code = "import sys, patcher.simulator; from patcher.mac import parse; parse('1'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
