"""A sum that is added in place by compiled code: a race in torch 2.13, right under the patch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.process import run_python

SCRIPT = """
import json, sys
patched = json.loads(sys.argv[1])
if patched:
    from patcher import patch_for_mac
    patch_for_mac(simulate="M1 8GB")
import torch
from patcher.simulator import start
start("M1 8GB")

@torch.compile
def add_up(total, x):
    total.add_(x.sum())
    return total

@torch.compile
def plain(seen, x):
    seen.mul_(x)

@torch.compile
def rows(seen, x):
    seen.add_(x.sum(-1))
    return x / x.sum(-1, keepdim=True)

@torch.compile
def margin(x, chosen):
    return torch.nn.functional.multi_margin_loss(x, chosen)

def gradient():
    x = torch.zeros(1, 10, device="mps", requires_grad=True)
    margin(x, torch.tensor([3], device="mps")).backward()
    return [round(share, 6) for share in x.grad.flatten().tolist()]

def run():
    total, seen = torch.ones((), device="mps"), torch.ones(3, device="mps")
    add_up(total, torch.ones(2048, device="mps"))
    plain(seen, torch.full((3,), 2.0, device="mps"))
    shares = rows(seen, torch.ones(3, 1500, device="mps"))
    return [total.item(), *seen.tolist(), *{round(share, 7) for share in shares.flatten().tolist()}]

try:
    print(json.dumps({"sums": run(), "gradient": gradient()}))
except RuntimeError as error:
    print(json.dumps(str(error)))
"""


def outcome(folder: Path, *, patched: bool, check: bool) -> Any:
    """What the script gives in a process of its own, with nothing in Inductor's cache."""
    done = run_python(
        "-W",
        "ignore",
        "-c",
        SCRIPT,
        json.dumps(patched),
        timeout=200,
        TORCHINDUCTOR_CACHE_DIR=str(folder),
        PATCHER_METAL_CHECK=str(int(check)),
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_checker_of_metal_code_sees_the_race_in_unpatched_torch(tmp_path: Path) -> None:
    """It is in torch's own code generator, so that it is there without being switched on."""
    assert "races with a write of another thread" in outcome(tmp_path, patched=False, check=True)


@pytest.mark.slow
def test_patched_code_adds_once_and_has_no_race(tmp_path: Path) -> None:
    """One sum and three, and code without a sum, under the checker; what Inductor cached unpatched is not used.

    The gradient of a margin loss adds a sum to the place of the chosen class, atomically: unpatched, once for each of
    the ten threads.
    """
    unpatched = outcome(tmp_path, patched=False, check=False)
    assert unpatched["sums"][0] > 2049
    assert unpatched["gradient"] == [0.1] * 3 + [-9.0] + [0.1] * 6
    patched = outcome(tmp_path, patched=True, check=True)
    assert patched["sums"] == [2049.0, 1502.0, 1502.0, 1502.0, round(1 / 1500, 7)]
    assert patched["gradient"] == [0.1] * 3 + [-0.9] + [0.1] * 6
