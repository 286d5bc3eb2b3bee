"""Unsloth with the Metal variants of ops against its own Triton kernels: the tests of the replacements, once more.

Here in fp16; all of them: ``PATCHER_ORACLE=metal python -m pytest tests/changes/unsloth/test_rms_layernorm.py``.
"""

from __future__ import annotations

import pytest

from tests.process import run_module

pytestmark = pytest.mark.slow

FILES = ("rms_layernorm", "fused_add_rms_layernorm", "layernorm", "swiglu", "geglu", "rope_embedding", "qk_norm_rope")


def test_the_tests_of_replacements_pass_with_metal_variants() -> None:
    """On a simulated Mac, with the same bounds: values, gradients, memory that is written, strides, types."""
    paths = [f"tests/changes/unsloth/test_{file}.py" for file in (*FILES, "cross_entropy_loss")]
    told = run_module("pytest", "-n0", "-m", "not slow", "-k", "dtype1", *paths, PATCHER_ORACLE="metal").stdout
    assert "[100%]" in told
