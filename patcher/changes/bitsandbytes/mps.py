"""A large weight is quantized to 4 bit in pieces, so that loading needs little beside the model."""

from __future__ import annotations

from patcher.changes.bitsandbytes import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="bitsandbytes.backends.mps.ops:_quantize_4bit_fallback",
        replacement="patcher.replacements.bitsandbytes.mps:_quantize_4bit_fallback",
        expects="(A, blocksize, quant_type, quant_storage)",
        needed_for=None,
        why="24 bytes for each value of the weight are taken at once where the operator is not compiled, and a copy in "
        "fp32 where it is: 1.4 GB for the largest weight of an 8B model",
        upstream=source("bitsandbytes/backends/mps/ops.py", "_quantize_4bit_fallback"),
        until="bitsandbytes quantizes on mps in one kernel that needs no other package",
    ),
)
