"""What the shaders of all ops share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from patcher.ops.metal import library
from patcher.ops.metal.library import FOLDER, HELD, LARGEST_GROUP, group_of
from patcher.ops.variants.names import OPS


def test_the_shared_source_holds_as_many() -> None:
    """One number stands in two languages."""
    assert re.findall(r"HELD = (\d+);", (FOLDER / "shared.h").read_text()) == [str(HELD)]


@pytest.mark.parametrize(("columns", "threads"), [(1, 32), (256, 32), (257, 64), (8192, 1024), (100_000, 1024)])
def test_a_row_has_whole_simdgroups(columns: int, threads: int) -> None:
    """As many as hold it, and no more than there are."""
    assert group_of(columns) == threads <= LARGEST_GROUP


def test_each_source_has_a_file_that_launches_it_and_samples() -> None:
    """One of each for every op."""
    assert OPS
    for op in OPS:
        assert (FOLDER / f"{op}.py").exists() and (FOLDER.parent / "trials" / f"{op}.py").exists(), op
        assert (Path(__file__).parent / f"test_{op}.py").exists(), op


def test_a_source_is_compiled_once_for_its_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its names of types come before it."""
    sources: list[str] = []
    monkeypatch.setattr(torch.mps, "compile_shader", lambda source: sources.append(source) or len(sources))
    library.library.cache_clear()
    half = [library.library("rms_norm", ("X", torch.float16), ("W", torch.float32)) for _ in range(2)]
    assert half == [1, 1] and library.library("rms_norm", ("X", torch.float32), ("W", torch.float32)) == 2
    assert "using X = half;\nusing W = float;\n" in sources[0]
    library.library.cache_clear()
