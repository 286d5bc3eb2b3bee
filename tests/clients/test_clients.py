"""What is chosen of a project's tests, and what their outcomes come to; the tests run by ``make clients``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.clients.sample import LARGEST, chosen, size
from tests.clients.summary import kind, outcomes, reasons, table


def _item(**params: Any) -> Any:
    return SimpleNamespace(callspec=SimpleNamespace(params=params))


def test_the_smallest_is_chosen() -> None:
    """By the whole numbers of its parameters, those in lists too; truth values are no sizes."""
    items = [_item(T=64, D=32, causal=True), _item(T=63, D=1, causal=True), _item(shape=[8, 9], causal=False)]
    assert [size(item) for item in items] == [2048, 63, 72]
    assert chosen(items) == [items[1]]
    assert chosen([_item(V=LARGEST + 1)]) == []
    plain = SimpleNamespace()
    assert chosen([plain]) == [plain]


def test_a_test_has_the_worst_outcome_of_its_phases() -> None:
    lines = [
        {"collected": 3, "sampled": 3},
        {"test": "a.py::x", "outcome": "passed", "when": "call"},
        {"test": "a.py::x", "outcome": "failed", "when": "teardown", "kind": "ValueError", "why": "no\nmore"},
        {"test": "a.py::y", "outcome": "skipped", "when": "setup", "why": "on CUDA only"},
        {"test": "b.py::z", "outcome": "passed", "when": "call"},
    ]
    assert outcomes(lines) == {"a.py::x": "failed", "a.py::y": "skipped", "b.py::z": "passed"}
    assert table(lines).splitlines()[2:] == ["| a.py | 0 | 1 | 1 |", "| b.py | 1 | 0 | 0 |", "| all | 1 | 1 | 1 |"]
    assert "a.py::x: ValueError: no" in reasons(lines) and "1  on CUDA only" in reasons(lines)


def test_failures_have_kinds() -> None:
    line = {"outcome": "failed", "when": "call"}
    assert kind({**line, "kind": "KernelNotSupported", "why": ""}) == "the kernel holds what cannot run"
    assert kind({**line, "kind": "RuntimeError", "why": "no kernel on mps"}) == "mps lacks it"
    assert kind({**line, "kind": "UnboundLocalError", "why": "NUM_SMS"}) == "UnboundLocalError"
    assert kind({"outcome": "failed", "when": "import", "why": "No module"}) == "import"
