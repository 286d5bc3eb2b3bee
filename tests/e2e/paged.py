"""Every paged optimizer of bitsandbytes that has a form without pages: same parameters after four steps, on mps.

    python -m tests.e2e.paged

Prints one JSON object: for each optimizer whether its parameters have the same bits as those of the unpaged form.
"""

from __future__ import annotations

import json
from typing import Any

from patcher import patch_for_mac

HANDLE = patch_for_mac(simulate="M3 Max 36GB")

import bitsandbytes as bnb
import torch

PAGED = sorted(name for name in dir(bnb.optim) if name.startswith("Paged") and name != "PagedAdEMAMix32bit")
"""All but one, whose unpaged form fails in bitsandbytes 0.50.2, on the CPU too: it allocates one moment of two."""
FOR_PAGING = 100_000
"""Values from which on bitsandbytes pages."""


def train(name: str) -> tuple[torch.Tensor, Any]:
    torch.manual_seed(0)
    model = torch.nn.Linear(400, FOR_PAGING // 400).to("cuda")
    optimizer = getattr(bnb.optim, name)(model.parameters(), lr=1e-3)
    x = torch.randn(8, 400, generator=torch.Generator().manual_seed(1)).to("cuda")
    for step in range(4):
        if step == 2:
            optimizer.load_state_dict(optimizer.state_dict())
        model(x).pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    states = [
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)
    ]
    return model.weight.detach().cpu(), {value.device.type for value in states if value.numel() >= FOR_PAGING}


def main() -> None:
    found = {}
    for name in PAGED:
        train(name.removeprefix("Paged"))  # bitsandbytes compiles the update: first for these numbers, then for any
        weight, devices = train(name)
        unpaged, _ = train(name.removeprefix("Paged"))
        found[name] = bool(weight.isfinite().all()) and torch.equal(weight, unpaged) and devices == {"mps"}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
