"""Clipping on mps: torch's numbers, with two kernels for gradients that lie side by side."""

from __future__ import annotations

import pytest

from tests.process import answer, run_python

pytestmark = pytest.mark.slow

PROGRAM = """
from patcher import patch_for_mac
handle = patch_for_mac(simulate="M3 Max 36GB")
import json, torch
from patcher.simulator.meter import Meter

def clipped(device, together, **options):
    numbers = torch.randn(60, generator=torch.Generator().manual_seed(1)).to(device)
    parts = numbers.split([8, 12, 20, 20])
    params = [torch.nn.Parameter(torch.zeros(2, len(part) // 2, device=device)) for part in parts]
    for param, part in zip(params, parts):
        param.grad = (part if together else part.clone()).view(2, -1)
    meter = Meter() if device == "mps" else None
    if meter: meter.__enter__()
    norm = torch.nn.utils.clip_grad_norm_((p for p in params), 1.5, **options)
    if meter: meter.__exit__(None, None, None)
    return dict(norm=norm.item(), grads=[n for p in params for n in p.grad.flatten().tolist()],
                kernels=meter.usage().dispatches if meter else 0)

cases = {name: [clipped(*how, **options) for how in (("mps", True), ("mps", False), ("cpu", False))]
         for name, options in dict(two={}, most=dict(norm_type=float("inf")), foreach=dict(foreach=True),
                                   count=dict(norm_type=0)).items()}
nothing = torch.nn.utils.clip_grad_norm_([torch.nn.Parameter(torch.zeros(2, device="mps"))], 1.0).item()
wrong = torch.nn.Parameter(torch.zeros(2, device="mps"))
wrong.grad = torch.full((2,), float("nan"), device="mps")
try:
    torch.nn.utils.clip_grad_norm_(wrong, 1.0, error_if_nonfinite=True); refused = False
except RuntimeError:
    refused = True
print("ANSWER" + json.dumps(dict(cases=cases, nothing=nothing, refused=refused)))
"""


def test_gradients_side_by_side_are_one() -> None:
    """Norm and gradients equal the CPU's within 4 eps of fp32: sums of 60 squares in another order, and a root."""
    found = answer(run_python("-c", PROGRAM))
    for name, (together, apart, cpu) in found["cases"].items():
        for of_mps in (together, apart):
            assert of_mps["norm"] == pytest.approx(cpu["norm"], rel=4 * 2**-23), name
            assert of_mps["grads"] == pytest.approx(cpu["grads"], rel=4 * 2**-23), name
        each = 1 if name == "count" else 2  # a product, and a norm where that of parts is that of the whole
        assert apart["kernels"] - together["kernels"] == each * 3, name
    assert found["nothing"] == 0 and found["refused"]
