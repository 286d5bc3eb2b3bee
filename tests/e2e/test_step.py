"""What a LoRA step through Unsloth takes on the simulated Mac's meter: it is counted, and may only become less."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.step_waits import LOGGED, STEPS
from tests.process import answer, run_module, run_python

pytestmark = pytest.mark.slow

PER_LAYER = 191
"""Kernels of a layer, forward and backward: 55 of them of the projections and their adapters."""
STEP = 536
"""Of a step of two layers, the optimizer's two included."""
OF_LOGGING = 2
"""Waits where a step is logged: for its loss and the norm of its gradients. Any other step waits for nothing."""
WITHOUT_PADDING = 8
"""Of a batch without padding: Unsloth asks for the lengths of its texts twice for the loss, and copies back where their
ends are twice; each of two layers asks for them once; which labels count is asked for twice, as the ends do not."""


def test_kernels_of_a_layer_and_of_a_step(tmp_path: Path) -> None:
    """As `benchmarks/bench_step.py` counts them. Less is a new number here."""
    run = run_python("benchmarks/bench_step.py", "--lengths", 64, "--process", "unsloth", tmp_path, False)
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["layer"] <= PER_LAYER
    assert found["layer, optimizer"] == found["layer"]
    assert found["kernels"] <= STEP


@pytest.mark.parametrize(("rows", "waits"), [(["padded"], 0), ([], WITHOUT_PADDING)])
def test_a_trainers_step_waits_where_it_is_logged_only(rows: list[str], waits: int, tmp_path: Path) -> None:
    """Batches, the loss, clipping and the optimizer wait for nothing, nor does Unsloth's checkpointing."""
    found = answer(run_module("tests.e2e.step_waits", "sft", tmp_path, *rows))
    assert len(found) == STEPS
    later = list(enumerate(found, start=1))[1:]
    # What a step that is logged waits for comes after its optimizer step, so it counts for the next.
    assert all(count <= waits + OF_LOGGING * (number % LOGGED == 1) for number, count in later)
