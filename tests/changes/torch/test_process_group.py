"""A process group of one process works by default; what a Mac has no collectives for is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.process import run_module


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``groups`` found in a process of its own."""
    file = tmp_path_factory.mktemp("groups") / "found.json"
    run_module("tests.changes.torch.groups", file, timeout=120)
    answers: dict[str, Any] = json.loads(file.read_text())
    return answers


def test_the_default_is_gloo_and_takes_tensors_on_mps(found: dict[str, Any]) -> None:
    assert found["backend"] == "gloo" and found["barrier"] is None
    for name in ("all_reduce", "average", "broadcast", "all_gather_into_tensor"):
        assert found[name] == [1.0, 2.0], (name, found[name])


def test_lists_of_tensors_on_mps_are_filled(found: dict[str, Any]) -> None:
    """all_gather, gather and scatter, which torch's fallback does not reach."""
    assert found["over lists"] == [[1.0, 2.0]] * 3


def test_what_is_on_the_cpu_is_torchs(found: dict[str, Any]) -> None:
    assert found["on the CPU"] == [1.0, 1.0]
    assert found["the CPU's among several"] is None


@pytest.mark.parametrize(
    ("case", "instead"),
    [
        ("nccl", "one process"),
        ("on mps", "leave DistributedDataParallel out"),
        ("among several", "tensor on the CPU (x.cpu())"),
        ("a list among several", "tensor_list on the CPU (x.cpu())"),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_write(case: str, instead: str, found: dict[str, Any]) -> None:
    assert found[case].startswith("NotOnMac: ") and instead in found[case], found[case]


def test_undo_gives_torch_its_own_back(found: dict[str, Any]) -> None:
    """Whose default on a device for mps has no backend for the CPU's tensors."""
    assert found["undone"].startswith("RuntimeError: No backend type associated with device type cpu")
