"""Matrix products are right where Metal's are not: long sums, huge batches, and what ``beta=0`` is to ignore."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import Kernel
from patcher.macs.machine import Machine


def _sums_right(machine: Machine) -> str | None:
    generation = machine.generation
    return f"M{generation} adds long sums up rightly" if generation is not None and generation >= 3 else None


_kernel = partial(
    Kernel,
    distribution="torch",
    reviewed=">=2.13,<2.15",
    dispatch_key="MPS",
    wraps=True,
    needed_for="large matrix products, which are wrong without a word",
)
_long_sums = partial(
    _kernel,
    skip=_sums_right,
    why="on M1 and M2 a sum over 32767 or more terms adds what lies in memory behind the operands",
    upstream="pytorch issues 177116, 193487 and 195163; torch 2.14 mends 2-D products of more than 32768 terms, "
    "with a kernel that is 6 to 10 times slower (issue 198182)",
    until="Apple's matrix kernels clip their last tile (FB24518264)",
)
_batches = partial(
    _kernel,
    why="beyond 2^32 elements a batched product repeats its beginning; on M1 and M2 sums over 32767 or more terms "
    "are wrong; before torch 2.14 beta=0 lets NaN through",
    upstream="pytorch issues 195163, 197636 and 187521",
    until="issues 195163 and 197636 are closed, and torch 2.13 is no longer supported",
)

CHANGES = (
    *(
        _long_sums(op=f"aten::{name}", replacement=f"patcher.replacements.torch.matmul:{name.replace('.', '_')}")
        for name in ("mm", "mm.out", "addmm", "addmm_", "addmm.out", "addbmm", "addbmm_", "addbmm.out")
    ),
    *(
        _batches(op=f"aten::{name}", replacement=f"patcher.replacements.torch.matmul:{name.replace('.', '_')}")
        for name in ("bmm", "bmm.out", "baddbmm", "baddbmm_", "baddbmm.out")
    ),
)
