"""Whose code a file holds: the user's or a library's."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from patcher.provenance import is_library


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    """The answers are kept; these are about files that nobody else asks for."""
    is_library.cache_clear()
    yield
    is_library.cache_clear()


def test_generated_code_is_a_librarys_wherever_unsloth_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the folder that the user names, relative to where the script runs or not, and in a temporary one instead."""
    monkeypatch.chdir(tmp_path)
    assert not is_library(f"{tmp_path}/mine/moe_utils.py")
    is_library.cache_clear()
    monkeypatch.setenv("UNSLOTH_COMPILE_LOCATION", "mine")
    assert is_library(f"{tmp_path}/mine/moe_utils.py") and is_library(f"{tempfile.gettempdir()}/mine/moe_utils.py")
    assert not is_library(f"{tmp_path}/train.py") and not is_library(f"{tmp_path}/mine/project/train.py")
    monkeypatch.setenv("UNSLOTH_COMPILE_LOCATION", f"{tmp_path}/other")
    assert is_library(f"{tmp_path}/other/UnslothSFTTrainer.py")


def test_the_folder_of_the_script_stays_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Unsloth writes beside the script, the script must still hear that there is a GPU."""
    monkeypatch.chdir(tmp_path)
    for location in (".", "", str(tmp_path)):
        is_library.cache_clear()
        monkeypatch.setenv("UNSLOTH_COMPILE_LOCATION", location)
        assert not is_library(f"{tmp_path}/train.py")
