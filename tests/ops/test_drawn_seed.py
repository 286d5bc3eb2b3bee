"""Seeds that follow from the state of a generator; on mps: tests/changes/torch/test_attention.py."""

from __future__ import annotations

import pytest
import torch

from patcher.ops.drawn_seed import drawn_seed


def test_a_seed_follows_from_the_state_and_is_drawn_once() -> None:
    """The same state gives the same seeds; each is another one, of at most 63 bits, and the generator goes on."""
    device = torch.device("cpu")
    torch.manual_seed(0)
    seeds = [drawn_seed(device) for _ in range(50)]
    rest = torch.rand(4)
    torch.manual_seed(0)
    assert [drawn_seed(device) for _ in range(50)] == seeds
    assert torch.equal(torch.rand(4), rest)
    assert len(set(seeds)) == 50 and all(0 <= seed < 2**63 for seed in seeds)
    assert sum(seed.bit_count() for seed in seeds) == pytest.approx(50 * 63 / 2, abs=5 * (50 * 63 / 4) ** 0.5)
