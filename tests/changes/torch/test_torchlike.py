"""Torch under the patch is torch: every way in which its functions are used and asked about."""

from __future__ import annotations

import json

import pytest

from tests.changes.torch.torchlike import KINDS
from tests.process import run_module

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What ``torchlike.py`` found in a process of its own."""
    file = tmp_path_factory.mktemp("torchlike") / "outcomes.json"
    run_module("tests.changes.torch.torchlike", file, timeout=300)
    found: dict[str, str] = json.loads(file.read_text())
    return found


@pytest.mark.parametrize("kind", [*KINDS, "undone"])
def test_a_replaced_function_is_torchs_own_to(kind: str, outcomes: dict[str, str]) -> None:
    assert outcomes[kind] == ""
