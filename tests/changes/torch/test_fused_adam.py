"""Fused Adam and AdamW on mps: torch's own numbers to the bit, with two kernels for however many parameters."""

from __future__ import annotations

from typing import Any

import pytest

from tests.process import answer, run_python

pytestmark = pytest.mark.slow

PROGRAM = """
from patcher import patch_for_mac
handle = patch_for_mac(simulate="M3 Max 36GB", without=WITHOUT)
import io, json, torch
from patcher.simulator.meter import Meter

def trained(optimizer, dtypes, scaled=False, lr=0.1, **options):
    generator = torch.Generator().manual_seed(1)
    params = [torch.nn.Parameter(torch.randn(3, n + 1, generator=generator).to(dtype).to("mps"))
              for n, dtype in enumerate(dtypes)]
    optimizer = optimizer(params, lr=lr, weight_decay=0.1, fused=True, **options)
    kernels = []
    for step in range(5):
        for place, param in enumerate(params):
            param.grad = torch.randn(param.shape, generator=generator).to(param.dtype).to("mps")
            if step == 1 and place == 1:
                param.grad = None  # counts of one step less
        if scaled:
            optimizer.grad_scale = torch.tensor(4.0, device="mps")
            optimizer.found_inf = torch.tensor(float(step == 2), device="mps")
        with Meter() as meter:
            optimizer.step()
        kernels.append(meter.usage().dispatches)
        if step == 3:  # through a file
            file = io.BytesIO()
            torch.save(optimizer.state_dict(), file)
            file.seek(0)
            optimizer.load_state_dict(torch.load(file))
    numbers = [t.float().cpu().tolist() for p in params for t in (p, *optimizer.state[p].values())]
    return dict(numbers=numbers, kernels=kernels)

three, mixed = [torch.float32] * 3, [torch.float32, torch.bfloat16, torch.float32, torch.bfloat16]
print("ANSWER" + json.dumps(dict(
    AdamW=trained(torch.optim.AdamW, three),
    Adam=trained(torch.optim.Adam, three, amsgrad=True, maximize=True),
    mixed=trained(torch.optim.AdamW, mixed),
    scaled=trained(torch.optim.AdamW, three, scaled=True),
    rate=trained(torch.optim.AdamW, three, lr=torch.tensor(0.1, device="mps")),
)))
"""


def test_numbers_are_torchs_and_the_count_is_one_kernel() -> None:
    """Parameters, averages and counts, over a parameter without a gradient, a skipped step and a saved state."""
    found = _trained(without=())
    without = _trained(without=("torch.optim.adam:_fused_adam",))
    for case, theirs in without.items():
        assert found[case]["numbers"] == theirs["numbers"], case
    assert found["AdamW"]["kernels"][-1] == 2 and without["AdamW"]["kernels"][-1] == 4
    assert found["mixed"]["kernels"][-1] == 3


def _trained(without: tuple[str, ...]) -> dict[str, dict[str, list[Any]]]:
    found: dict[str, dict[str, list[Any]]] = answer(run_python("-c", PROGRAM.replace("WITHOUT", repr(without))))
    return found
