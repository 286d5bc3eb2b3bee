"""torch.compile as Unsloth asks for it works where CI is set, as on a build server."""

from __future__ import annotations

import pytest

from tests.process import run_python

CHAINED = """
from patcher import patch_for_mac
patch_for_mac(simulate=True)
import torch

def chained(a):
    b = torch.mm(a, a)
    c = torch.mm(b, a)
    return torch.mm(c, b).sum() + torch.mm(c, c).sum()

compiled = torch.compile(chained, dynamic=True, options={"memory_planning": True})
with torch.inference_mode():
    print(float(compiled(torch.ones(12, 12, device=%r))))
"""


@pytest.mark.slow
@pytest.mark.parametrize("device", ["mps", "cpu"])
def test_memory_planning_in_inference_mode(device: str) -> None:
    """Inductor's own pool operator is taken for an aliasing custom one, which torch refuses where CI is set."""
    done = run_python("-c", CHAINED % device, timeout=300, CI="true")
    assert float(done.stdout.splitlines()[-1]) == 12**6 + 12**7
