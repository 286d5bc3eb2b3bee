"""The allocator's part on the simulated Mac: every figure is that of the plain models."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from patcher.calibration import runner
from patcher.calibration.facts import Facts
from patcher.calibration.parts import BY_NAME
from patcher.calibration.sequences import LONGEST
from tests.calibration import allocator_model
from tests.calibration.allocator_model import MODELS, carried_out

pytestmark = pytest.mark.slow

M1 = Facts("Apple M1", 8, 8 * 2**30, (15, 5), "2.14.1", "", "", simulated=True)
DEVICE = {"recommended_max_memory": allocator_model.WORKING_SET}


def results(facts: Facts, *names: str) -> dict[str, dict[str, Any]]:
    """What the simulated Mac does in these cases, each in a process of its own."""
    with runner.Cases(BY_NAME["allocator"], facts, DEVICE) as cases:
        return {name: cases.run(name) for name in names}


def test_every_step_is_the_models() -> None:
    """Bytes allocated, bytes of the driver and refusals, beyond the soft limit and at the hard one; to the byte."""
    found = results(M1, "ranges", "soft limit", "hard limit", LONGEST)
    assert found.pop(LONGEST) == {"longest": allocator_model.LONGEST}
    for name, result in found.items():
        steps = [(step, allocated, driver, bool(refusal)) for step, allocated, driver, _, refusal in result["steps"]]
        assert steps == carried_out(name, MODELS["2.14"])
        assert {recommended for _, _, _, recommended, _ in result["steps"]} == {allocator_model.WORKING_SET}
        assert len(result["texts"]) == sum(refused for *_, refused in steps)
    assert found["hard limit"]["texts"][0].startswith("MPS backend out of memory (MPS allocated: 2.00 GiB")


def test_a_mac_that_nobody_sells() -> None:
    """7 GB, as a virtual one has."""
    virtual = dataclasses.replace(M1, chip="Apple M1 (Virtual)", gpu_cores=5, memory_bytes=7 * 2**30, torch="2.13.0")
    found = runner.ask_device(virtual)
    assert Facts.from_dict(found["facts"]).chip == "Apple M1 (Virtual)"
    assert found["recommended_max_memory"] == -(-7 * 2**31 // 3 // 2**14) * 2**14
