"""Everything in torch that takes a device takes CUDA's names and lands on mps, or is in a list with the reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from tests.changes.torch.devices import CALLS, EXCEPTIONS, WITHOUT_A_DEVICE, taking_a_device
from tests.process import run_module


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``device_calls`` found in a process of its own."""
    file = tmp_path_factory.mktemp("devices") / "found.json"
    run_module("tests.changes.torch.device_calls", file, timeout=300)
    answers: dict[str, Any] = json.loads(file.read_text())
    return answers


def test_the_table_holds_what_torch_has() -> None:
    """What a new torch adds has to be called, or to be excepted for a reason."""
    assert taking_a_device() == CALLS.keys() | EXCEPTIONS.keys()
    assert not CALLS.keys() & EXCEPTIONS.keys()


def test_each_function_lands_on_mps_by_each_name(found: dict[str, Any]) -> None:
    missed = {
        n: other for n, forms in found["calls"].items() if (other := {f: d for f, d in forms.items() if d != "mps"})
    }
    assert missed == {}
    assert found["calls"].keys() == CALLS.keys()


def test_so_do_the_ways_without_a_device(found: dict[str, Any]) -> None:
    assert found["others"] == dict.fromkeys(WITHOUT_A_DEVICE, "mps")


def test_what_mps_lacks_is_refused_with_what_to_write(found: dict[str, Any]) -> None:
    assert "torch.sparse_coo_tensor" in found["refused"]["sparse_csr_tensor"]
    for name in ("nested.nested_tensor", "nested_tensor of tensors on mps", "as_nested_tensor of tensors on mps"):
        assert "layout=torch.jagged" in found["refused"][name]


@pytest.mark.parametrize(
    ("fact", "right"),
    [
        ("generators", [True, True, True]),
        ("no generator", False),
        ("equal", True),
        ("annotation", "torch.Generator | None"),
        ("pickled", True),
        ("event", True),
        ("FloatTensor", [True, False, False]),
        ("sizes", [2, 3]),
        ("scripted", [0.0, 1.0, 2.0]),
        ("kaiser", 0.0),
        ("repeatable", True),
        ("from GPU to CPU", "cpu"),
        ("pinned", "cpu"),
        ("nested on the CPU", "cpu"),
    ],
)
def test_classes_and_tables_hold(fact: str, right: object, found: dict[str, Any]) -> None:
    assert found["facts"][fact] == right


def test_undo_gives_torch_its_own_back(found: dict[str, Any]) -> None:
    metaclass, tensor_type, refusal = found["undone"]
    assert metaclass == type(torch.Generator).__name__
    assert tensor_type == "<class 'torch.cuda.FloatTensor'>"
    assert refusal.startswith("RuntimeError")
