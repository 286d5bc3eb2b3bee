"""What is asked of the Metal variant of every op."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

from tests.process import run_module


def found_of(variant: ModuleType) -> dict[str, Any]:
    """What `on_simulated_mac` prints of the op whose Metal variant it is."""
    op = variant.__name__.rpartition(".")[2]
    found: dict[str, Any] = json.loads(run_module("tests.ops.metal.on_simulated_mac", op).stdout.splitlines()[-1])
    return found


def assert_right(found: dict[str, Any]) -> None:
    """Right in each type in two schedules and with the checker; with any fault it is refused, with none it is taken."""
    for way in ("forwards", "backwards", "checked"):
        assert set(found[way].values()) == {""}, (way, found[way])
    assert all(found["faults"].values()), found["faults"]
    assert found["refused"] and found["taken"]
