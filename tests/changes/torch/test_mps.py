"""The ``torch.cuda`` queries of CUDA scripts and notebooks are answered for mps."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.process import run_python

MIB = 2**20

SCRIPT = """
import json
from patcher import patch_for_mac
handle = patch_for_mac(simulate="M1 8GB")
import torch
cuda = torch.cuda
x = torch.ones(2**18, device="mps")
found = {
    "memory": [cuda.memory_allocated(), cuda.memory_stats()["allocated_bytes.all.current"]],
    "summary": cuda.memory_summary(),
    "total": cuda.get_device_properties(0).total_memory,
}
changed = [entry.change.key for entry in handle.report().entries if entry.state.value == "applied"]
names = [key.removeprefix("torch.mps:") for key in changed if key.startswith("torch.mps:")]
# torch.mps has a setter of its own, and whether CUDA is initialized depends on who asks
own = ("set_per_process_memory_fraction", "is_initialized")
both = [name for name in names if f"torch.cuda:{name}" in changed and name not in own]
found["both"] = len(both)
found["two answers"] = [name for name in both if getattr(cuda, name) is not getattr(torch.mps, name)]
del x
cuda.reset_max_memory_allocated()
found["peak after reset"] = cuda.max_memory_allocated()
cuda.ipc_collect()
start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
with cuda.device(0), cuda.stream(cuda.Stream()):
    start.record()
    torch.ones(64, 64, device="mps") @ torch.ones(64, 64, device="mps")
    end.record(cuda.current_stream())
end.synchronize()
found["milliseconds"] = start.elapsed_time(end)
torch.manual_seed(5)
found["seed"] = cuda.initial_seed()
states = cuda.get_rng_state_all()
first = torch.rand(3, device="mps").tolist()
cuda.seed_all()
other = torch.rand(3, device="mps").tolist()
cuda.set_rng_state_all(states)
found["random"] = [first == torch.rand(3, device="mps").tolist(), first == other]
handle.undo()
found["undone"] = [cuda.Event is cuda.streams.Event, cuda.memory_stats is cuda.memory.memory_stats]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """The answers in a fresh process on a simulated Mac."""
    done = run_python("-c", SCRIPT, timeout=120)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_memory_is_that_of_mps(found: dict[str, Any]) -> None:
    """2**18 floats are one MiB; the summary names the chip and the figures."""
    assert found["memory"] == [MIB, MIB]
    assert "Apple M1" in found["summary"] and "1.0 MiB" in found["summary"]
    assert found["peak after reset"] < MIB
    assert 4 * 2**30 < found["total"] < 8 * 2**30


def test_torch_cuda_and_torch_mps_have_one_answer(found: dict[str, Any]) -> None:
    """What both are asked, as a script and Unsloth do, has the same function or class: the queue, the figures."""
    assert found["both"] >= 16 and found["two answers"] == []


def test_events_and_streams_measure_mps(found: dict[str, Any]) -> None:
    """Without CUDA torch.cuda.Event and Stream cannot even be made."""
    assert 0 < found["milliseconds"] < 60_000


def test_random_states_are_those_of_mps(found: dict[str, Any]) -> None:
    assert found["seed"] == 5
    assert found["random"] == [True, False]


def test_undo_restores_torch_cuda(found: dict[str, Any]) -> None:
    assert found["undone"] == [True, True]
