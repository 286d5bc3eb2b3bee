"""Shaders touch no more device memory than the loads and stores of their programs name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.process import run_module

pytestmark = pytest.mark.slow

EVERY = 6
"""Every how many-th case runs."""

SMALL = "it loads a block with less elements than its threadgroup has threads: each simdgroup reads what it needs"

AGAIN = dict.fromkeys(
    (
        *("chunks_kernel", "matmul_kernel", "rotate_kernel", "join_blocks_kernel", "gather_kernel"),
        *("triangular_inverse_kernel", "gated_recurrence_kernel", "blocks.rows_kernel", "scaled.product_kernel"),
    ),
    SMALL,
)
"""Kernels whose shaders read some bytes more than once, a third more at the most, with the reason. To read them once
and hand them on would take a barrier, and the second time they come from a cache."""


LESS = frozenset(
    (
        *("other_kernel", "none_kernel", "globals_kernel", "zero_kernel", "scalar_kernel", "dequantized_kernel"),
        *("strided_kernel", "broadcast_kernel", "shared_kernel"),
    )
)
"""Kernels whose shaders touch less than their programs name: equal loads, and one that changes nothing, are none to a
compiler; lanes that meet at one element touch it once."""


def test_bytes(tmp_path: Path) -> None:
    """As many bytes are read and written as are named, kernel by kernel; products load more than 16 bytes at once."""
    run_module("tests.tiles.traffic", tmp_path / "out", f"::{EVERY}", "large.product")
    found = [each for every in json.loads((tmp_path / "out").read_text()).values() for each in every]
    assert len(found) > 50
    for each in found:
        kernel, named, touched = each["kernel"].rpartition(".")[2], sum(each["named"]), sum(each["touched"])
        if kernel in AGAIN or ".".join(each["kernel"].split(".")[-2:]) in AGAIN:
            assert 3 * touched <= 4 * named, kernel
        elif kernel in LESS:
            assert touched <= named, kernel
        else:
            assert each["named"] == each["touched"], kernel
