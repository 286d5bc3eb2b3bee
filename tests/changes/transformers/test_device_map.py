"""Where the names of GPUs in a device_map lead."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from patcher.replacements.transformers.device_map import memory_by_place, on_mps


@pytest.mark.parametrize(
    ("place", "lands"),
    [
        *((place, "mps") for place in (0, 1, "cuda", "cuda:0", "mps", "mps:0")),
        *((torch.device(place), "mps") for place in ("cuda", "cuda:1", "mps")),
        *((place, place) for place in ("cpu", "disk", "meta", -1, torch.device("cpu"), None, "auto", False)),
    ],
)
def test_every_name_of_a_gpu_is_mps(place: Any, lands: Any) -> None:
    """Numbers and CUDA's names; what is no GPU stays."""
    assert on_mps(place) == lands


def test_budgets_of_several_gpus_are_one() -> None:
    """max_memory of a CUDA script: its GPUs' budgets add up; the CPU's and the disk's stay."""
    given = {0: "1GB", 1: 5, "cuda:2": "1GiB", "cpu": "30GB"}
    assert memory_by_place(given) == {"mps": 10**9 + 5 + 2**30, "cpu": 30 * 10**9}
