"""The plan of the generated trainers' batches: upstream's, with the memory that mps has."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from patcher.replacements.unsloth.models_rl import autotune_batch_and_chunks

GIB = 2**30
NAME = "autotune_batch_and_chunks"


@pytest.fixture(scope="module")
def upstream() -> Callable[[int, tuple[Any, ...]], tuple[int, int]]:
    """Upstream's function as it plans on CUDA with so much free memory, without importing its package."""
    spec = importlib.util.find_spec("unsloth_zoo")
    assert spec is not None and spec.origin is not None
    tree = ast.parse((Path(spec.origin).parent / "rl_replacements.py").read_text())
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == NAME)

    def plan(free: int, arguments: tuple[Any, ...]) -> tuple[int, int]:
        cuda = SimpleNamespace(is_available=lambda: True, mem_get_info=lambda: (free, free))
        scope = {
            "torch": SimpleNamespace(cuda=cuda, **{n: getattr(torch, n) for n in ("arange", "float32", "nonzero")})
        }
        exec(compile(ast.Module([function], []), NAME, "exec"), scope)  # noqa: S102
        result: tuple[int, int] = scope[NAME](*arguments)
        return result

    return plan


@pytest.mark.parametrize("free", [GIB // 8, GIB, 5 * GIB, 96 * GIB])
@pytest.mark.parametrize(
    "arguments", [(16, 2048, 2048, 151936), (7, 9000, 4096, 32000, 32), (64, 300, 896, 512, 16, 8), (0, 300, 896, 512)]
)
def test_the_plan_is_that_of_cuda_with_this_memory(
    monkeypatch: pytest.MonkeyPatch, upstream: Callable[..., Any], free: int, arguments: tuple[Any, ...]
) -> None:
    """Rows and chunks, from a Mac on which not even one row fits to one on which all do."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, free))
    assert autotune_batch_and_chunks(*arguments) == upstream(free, arguments)
