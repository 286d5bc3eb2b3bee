"""What is known of each Mac: every figure has a source, and agrees with what Apple printed."""

from __future__ import annotations

import pytest

from patcher.macs.figures import CHIPS, SOURCES, WORKING_SET, WORKING_SET_26
from patcher.macs.mac import parse


def test_every_figure_names_a_source_that_exists() -> None:
    """Keys of SOURCES are those that are used; an observed working set says where."""
    used = {key for chip in CHIPS.values() for key in (chip.source, chip.clock_source)}
    assert used <= set(SOURCES)
    for entry in (*WORKING_SET, *WORKING_SET_26):
        assert entry.observed and all(len(where) > 20 for where in entry.observed.values())


@pytest.mark.parametrize(
    ("text", "published"), [("M1", 2.6), ("M1 Max", 10.4), ("M1 Ultra", 21), ("M2", 3.6), ("M2 Max", 13.6)]
)
def test_peak_rates_agree_with_those_that_apple_printed(text: str, published: float) -> None:
    """Cores x lanes x clock, within 3 percent: Apple rounds to one digit."""
    full = CHIPS[text].variants[-1]
    assert parse(f"{text} {full.gpu_cores}-core").tflops_fp32 / 1e12 == pytest.approx(published, rel=0.03)


def test_memory_and_cores_are_in_order() -> None:
    """Chips have their GPUs from the smallest to the largest, each with the memory sizes that it is sold with."""
    for chip in CHIPS.values():
        cores = [variant.gpu_cores for variant in chip.variants]
        assert cores == sorted(set(cores)) and cores[0] > 0
        for variant in chip.variants:
            assert variant.memory_gb and list(variant.memory_gb) == sorted(set(variant.memory_gb))
