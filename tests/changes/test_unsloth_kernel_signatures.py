"""A replacement has its target's name, as far as it has one of its own, and exactly its parameters."""

from __future__ import annotations

import inspect

import pytest

from patcher.changes import (
    unsloth_cross_entropy_loss,
    unsloth_fused_add_rms_layernorm,
    unsloth_geglu,
    unsloth_layernorm,
    unsloth_qk_norm_rope,
    unsloth_rms_layernorm,
    unsloth_rope_embedding,
    unsloth_swiglu,
)
from patcher.ledger import load, parse_signature
from patcher.model import Patch

MODULES = (
    unsloth_cross_entropy_loss,
    unsloth_fused_add_rms_layernorm,
    unsloth_geglu,
    unsloth_layernorm,
    unsloth_qk_norm_rope,
    unsloth_rms_layernorm,
    unsloth_rope_embedding,
    unsloth_swiglu,
)
PATCHES = [change for module in MODULES for change in module.CHANGES if isinstance(change, Patch)]


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.target)
def test_the_replacement_is_a_plain_function_with_the_targets_parameters(patch: Patch) -> None:
    """Keyword calls such as ``gemma=True`` arrive, and ``inspect.getsource`` finds the replacement's own source."""
    replacement = load(patch.replacement)
    assert inspect.isfunction(replacement) and not hasattr(replacement, "__wrapped__")
    assert replacement.__name__ == patch.qualname.rpartition(".")[2] and replacement.__closure__ is None
    expected = parse_signature(str(patch.expects)).parameters.values()
    found = inspect.signature(replacement).parameters.values()
    assert [(p.name, p.kind, p.default is p.empty) for p in found] == [
        (p.name, p.kind, p.default is p.empty) for p in expected
    ]
