"""Every public name of ``torch.cuda`` has an answer for mps, or is refused with what to write instead."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.changes.torch import cuda_names
from tests.changes.torch.cuda_names import ANSWERED, EXCEPTIONS, MODULES, REFUSED, SINCE_2_14
from tests.process import run_module


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``cuda_names`` found in a process of its own."""
    file = tmp_path_factory.mktemp("names") / "found.json"
    run_module("tests.changes.torch.cuda_names", file, timeout=240)
    answers: dict[str, Any] = json.loads(file.read_text())
    return answers


def test_the_tables_hold_what_torch_has() -> None:
    """What a new torch adds has to be called, or to be excepted for a reason."""
    names = cuda_names.public_names() - SINCE_2_14.keys()
    assert names == ANSWERED.keys() | REFUSED.keys() | EXCEPTIONS.keys()
    assert len(ANSWERED) + len(REFUSED) + len(EXCEPTIONS) == len(names)


@pytest.mark.parametrize("module", MODULES)
def test_each_name_answers_or_is_refused(module: str, found: dict[str, Any]) -> None:
    """In the module that CUDA's answer is defined in as in ``torch.cuda``."""
    assert len(found[module]) >= 9
    assert {n: o for n, o in found[module].items() if n in ANSWERED and o != "answered"} == {}
    refused = {name: text for name, text in found[module].items() if name in REFUSED}
    assert all(text.startswith("NotOnMac: torch.cuda.") and "expected:" in text for text in refused.values()), refused


def test_every_statistic_that_torch_documents_is_there(found: dict[str, Any]) -> None:
    documented = cuda_names.documented_statistics()
    assert len(documented) > 100
    assert documented - set(found["facts"]["statistics"]) == set()


@pytest.mark.parametrize(
    ("fact", "right"),
    [
        ("held", [2**20, 2**20]),
        ("nested", True),
        ("counts", [0, 0, 0]),
        ("the module's own", True),
        ("peak", True),
        ("seed", 7),
        ("generator", True),
        ("process", [True, ["MB", "GPU", "memory"]]),
        ("streams", True),
        ("scatter", [1, "mps", True]),
        ("scatter from the CPU", "mps"),
        ("stream of torch", [None, None]),
        ("event", [True, None, None]),
        ("the current device", "mps"),
        ("unknown argument", "TypeError: cuda() got an unexpected keyword argument 'colour'"),
        ("autocast off within autocast", [True, "torch.float32", "torch.float16", "torch.bfloat16", False]),
        ("learning rate of a captured optimizer", 0.5),
        ("gather", 5),
        ("replicas", 1),
        ("runtime", [0, True]),
        ("sync", 1),
        ("peer", "AssertionError: Invalid peer device id"),
        ("error", "RuntimeError: CUDA error 2, which no call on mps gives"),
        ("fraction", 0.25),
    ],
)
def test_answers_are_those_of_one_gpu(fact: str, right: object, found: dict[str, Any]) -> None:
    assert found["facts"][fact] == right


def test_a_word_that_is_no_mode_is_refused(found: dict[str, Any]) -> None:
    assert found["facts"]["wrong sync"].startswith("RuntimeError: invalid value of debug_mode")


def test_undo_gives_torch_its_own_back(found: dict[str, Any]) -> None:
    generators, broadcast, pool, same = found["undone"]
    assert generators and same and not broadcast
    assert pool.startswith("RuntimeError: Tried to instantiate dummy base class")
