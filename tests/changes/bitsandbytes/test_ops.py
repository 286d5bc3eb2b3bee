"""Where bitsandbytes' operators are not compiled."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from patcher.changes.bitsandbytes.ops import CHANGES
from patcher.macs.machine import Machine
from patcher.replacements.bitsandbytes import ops as bitsandbytes_ops
from tests.machines import M3_MAX


@pytest.mark.parametrize(
    ("machine", "compiled"),
    [(M3_MAX, True), (replace(M3_MAX, torch="2.12.1"), False), (replace(M3_MAX, simulated=True), False)],
)
def test_operators_are_compiled_where_the_compiler_can_be_trusted(machine: Machine, compiled: bool) -> None:
    """Inductor is wrong on mps before torch 2.13, and slow on the simulated Mac."""
    for change in CHANGES:
        assert change.skip is not None
        assert (change.skip(machine) is not None) is compiled


def test_the_compilers_wrapper_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each replacement passes its arguments in order to the function within the wrapper."""
    calls = []

    def wrapper(*args: object) -> None:
        raise AssertionError("compiled")

    wrapper.__wrapped__ = lambda *args: calls.append(args) or "result"  # type: ignore[attr-defined]
    monkeypatch.setattr(bitsandbytes_ops, "original", lambda target: wrapper)
    one = torch.zeros(1)
    assert bitsandbytes_ops._dequantize_blockwise_compute(one, one, one, 256, torch.half) == "result"
    assert bitsandbytes_ops._dequantize_4bit_compute(one, one, one, 64, (1,), torch.half) == "result"
    assert bitsandbytes_ops._quantize_blockwise_compute(one, one, 256) == "result"
    assert bitsandbytes_ops._quantize_4bit_compute(one, 64, one, one, True) == "result"
    tails = [args[3:] for args in calls]
    assert tails[:3] == [(256, torch.half), (64, (1,), torch.half), ()]
    assert tails[3][1] is True
