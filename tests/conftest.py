"""The order of the tests: torch can be given a simulated device only before its first backward in a process.

On a Mac tests that need Linux are skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from tests.linux_only import pytest_make_collect_report, pytest_runtest_makereport

__all__ = ["pytest_make_collect_report", "pytest_runtest_makereport"]

SIMULATOR = Path(__file__).parent / "simulator"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: SIMULATOR not in item.path.parents)


@pytest.fixture(autouse=True)
def environment_restored() -> Iterator[None]:
    """What libraries write into the environment ends with the test: accelerate switches the CPU fallback on.

    What other tests have found out about shaders is not known.
    """
    with mock.patch.dict(os.environ, PATCHER_TRITON_CACHE="0"):
        yield
