"""bitsandbytes computes its mps operators directly where its own torch.compile cannot be used."""

from __future__ import annotations

from patcher.changes.bitsandbytes import DISTRIBUTION, REVIEWED, source
from patcher.changes.torch import issues
from patcher.engine.model import AnyChange, Patch
from patcher.macs.machine import Machine
from patcher.training.rules import torch_before

_DEFAULT = "bitsandbytes.backends.default.ops"
_MPS = "bitsandbytes.backends.mps.ops"


def _compiles(machine: Machine) -> str | None:
    """A Mac with torch 2.13 or later compiles them, as upstream means it."""
    if machine.simulated or torch_before(machine, 2, 13):
        return None
    return "torch.compile works on mps from torch 2.13 on"


CHANGES: tuple[AnyChange, ...] = tuple(
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target=f"{module}:{name}",
        replacement=f"patcher.replacements.bitsandbytes.ops:{name}",
        expects=expects,
        needed_for=None,
        skip=_compiles,
        why="torch.compile gives wrong results on mps before torch 2.13, and on the simulated Mac it costs "
        "seconds at every call",
        upstream=source("bitsandbytes/backends/default/ops.py", "_try_torch_compile", issues(170360, 191976)),
        until="the oldest torch that is supported is 2.13, and the simulated Mac runs what Inductor generates",
    )
    for module, name, expects in (
        (_DEFAULT, "_dequantize_blockwise_compute", "(A_flat, absmax, code, blocksize, dtype)"),
        (_DEFAULT, "_dequantize_4bit_compute", "(A_flat, absmax, code, blocksize, shape, dtype)"),
        (_MPS, "_quantize_blockwise_compute", "(A_flat, code, blocksize)"),
        (_MPS, "_quantize_4bit_compute", "(A_flat, blocksize, bounds, order, nf4)"),
    )
)
