"""The order of the tests: torch can be given a simulated device only before its first backward in a process."""

from __future__ import annotations

from pathlib import Path

import pytest

SIMULATOR = Path(__file__).parent / "simulator"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: SIMULATOR not in item.path.parents)
