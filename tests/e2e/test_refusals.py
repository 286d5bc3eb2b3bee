"""What cannot run on a Mac is refused in our words, also where no training argument asked for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process import answer, run_module

ALTERNATIVES = {
    "DeepSpeed": "gradient_checkpointing=True",
    "DeepSpeed by variable": "gradient_checkpointing=True",
    "FSDP": "one process",
    "FSDP by variable": "one process",
    "Megatron-LM by variable": "one process",
    "fp8": "mixed_precision='bf16'",
    "fp8 by variable": "mixed_precision='bf16'",
    "nccl": "one process",
    "flex": '"sdpa"',
}


@pytest.mark.slow
def test_what_cannot_run_is_refused_with_the_alternative(tmp_path: Path) -> None:
    """By plugin, by variable and by name; what stands beside it still works."""
    found = answer(run_module("tests.e2e.refusals", tmp_path, timeout=200))
    for name, alternative in ALTERNATIVES.items():
        assert found[name].startswith("NotOnMac: ") and alternative in found[name], (name, found[name])
    assert {name: text for name, text in found.items() if name not in ALTERNATIVES} == {
        "bf16": "works",
        "gloo": "works",
        "flash kernel": "works",
    }
