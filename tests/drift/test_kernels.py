"""Triton kernels in a text, and those that are new or gone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from patcher.drift.kernels import compared, kernels_of
from tests.drift.fakes import release

SOURCE = """
import triton
@triton.autotune(configs=[])
@triton.jit(do_not_specialize=['n'])
def a(): ...
def b(): ...
b = triton.jit(b)
def build():
    @triton.jit
    def c(): ...
@torch.jit.script
def d(): ...
@triton.jit
def a(): ...
"""


def test_every_form_is_seen(tmp_path: Path) -> None:
    """Decorated, wrapped by a call, inside a function, twice; nothing else that is called jit, and no broken file."""
    files = {"unsloth/m.py": SOURCE, "unsloth/n.py": "torch.jit.script(f)", "unsloth/o.py": "@triton.jit\ndef f(:"}
    assert kernels_of([release(tmp_path, files)]) == {"unsloth.m": Counter(a=2, b=1, c=1)}


def test_new_and_gone(tmp_path: Path) -> None:
    """By module; one that moved is both."""
    before = release(tmp_path, {"unsloth/m.py": SOURCE})
    now = release(tmp_path, {"unsloth/m.py": SOURCE.replace("def a", "def e", 1), "unsloth/n.py": SOURCE[:80]})
    kernels = compared([now], [before])
    assert kernels.new == {"unsloth.m": ("e",)} and kernels.gone == {"unsloth.m": ("a",)}
    assert (kernels.count, kernels.reviewed) == (4, "unsloth 2026.11.1")
    moved = compared([release(tmp_path, {"unsloth/n.py": SOURCE})], [before])
    assert moved.new == {"unsloth.n": ("a", "a", "b", "c")} and moved.gone == {"unsloth.m": ("a", "a", "b", "c")}
