"""Unsloth's and TRL's own functions run on the simulated Mac, without a call that needs CUDA."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.process import run_module


@pytest.mark.slow
def test_kernels_give_the_same_on_mps_and_on_the_cpu(tmp_path: Path) -> None:
    """LoRA, 4-bit weights, both attentions, experts and TRL's functions: within one bf16 eps, gradients included."""
    # Unsloth writes its compile cache into the working directory.
    run = run_module("tests.e2e.kernels_on_mps", cwd=tmp_path, timeout=300)
    distances = json.loads(run.stdout.strip().splitlines()[-1])
    assert len(distances) == 7
    for case, values in distances.items():
        assert max(values) <= 2**-8, (case, values)
