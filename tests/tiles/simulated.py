"""Launches on the simulated Mac's own tensors, and where they ran: ``python -m tests.tiles.simulated``."""

from __future__ import annotations

import os

import torch

from patcher.simulator import startup
from patcher.tiles import backends


def main() -> None:
    """Prints the account of three kernels."""
    startup.start("M1")
    from tests.tiles.test_on_metal import doubled, locked

    x = torch.arange(100.0, device="mps", requires_grad=True)
    doubled[(2,)](x, 100, 64)
    doubled[(1,)](x[50:], 7, 64)
    os.environ["PATCHER_TRITON"] = "torch"
    doubled[(2,)](x, 100, 64)
    del os.environ["PATCHER_TRITON"]
    locked[(1,)](torch.zeros(1, dtype=torch.int32, device="mps"))
    expected = torch.arange(100.0) * 4
    expected[50:57] *= 2
    assert torch.equal(x.detach().cpu(), expected)
    for launched, count in backends.launches.items():
        print(launched.kernel, launched.back_end, launched.why, count)


if __name__ == "__main__":
    main()
