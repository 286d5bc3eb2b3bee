"""Metal variants on generated cases."""

from __future__ import annotations

import os

import pytest

from tests.ops.metal.generated import OPS
from tests.process import run_module, run_python

pytestmark = pytest.mark.slow

CASES = int(os.environ.get("PATCHER_METAL_GENERATED", "40"))
"""Of each op."""


def test_they_agree_with_the_torch_variant() -> None:
    """Any shape, strides, offsets, types and options."""
    told = run_module("tests.ops.metal.generated", str(CASES), timeout=None).stdout.split("\n")
    assert [line for line in told if line] == [f"{op.__name__} {CASES}" for op in OPS]


def test_no_rows() -> None:
    """Nothing is launched, and gradients of weights are 0."""
    script = """
import torch
from patcher.simulator import startup
startup.start("M1")
from patcher.ops.metal import cross_entropy, gated_linear_unit, layer_norm, qk_norm_rope, rms_norm, rope
from patcher.ops.swiglu import silu, silu_and_slope
none, w, one = (torch.ones(n, device="mps") for n in (0, 8, 1))
x, heads = torch.ones(0, 8, device="mps"), torch.ones(0, 3, 2, 8, device="mps")
y, rstd = rms_norm.rms_norm(x, w, 1e-5)
dw = rms_norm.rms_norm_backward(x, x, w, rstd, grad_input=x.clone(), needs_grad_weight=True)
y, mean, rstd = layer_norm.layer_norm(x, w, w, 1e-5)
_, dw_too, db = layer_norm.layer_norm_backward(x, x, w, mean, rstd, (True, True, True))
assert not (dw.any() or dw_too.any() or db.any())
gated_linear_unit.gated(x, x, silu), gated_linear_unit.gated_backward_(x, x, x, silu_and_slope)
table = torch.ones(4, 8, device="mps")
rope.rope_pair_(heads, heads, table, table, q_out=heads, k_out=heads)
qk_norm_rope.qk_norm_rope_pair(heads, heads, w, w, table, table, 1e-5, 1e-5)
losses, log_z = cross_entropy.cross_entropy(x, none.long())
cross_entropy.cross_entropy_backward(none, x, none.long(), losses, log_z)
"""
    run_python("-c", script)
