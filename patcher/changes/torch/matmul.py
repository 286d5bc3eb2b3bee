"""Matrix products are right where Metal's are not: long sums, huge batches, and what ``beta=0`` is to ignore."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, issues, native
from patcher.engine.model import Kernel
from patcher.macs.machine import Machine


def _sums_right(machine: Machine) -> str | None:
    generation = machine.generation
    return f"M{generation} adds long sums up rightly" if generation is not None and generation >= 3 else None


_kernel = partial(
    Kernel,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    dispatch_key="MPS",
    wraps=True,
    needed_for="large matrix products, which are wrong without a word",
)
_long_sums = partial(
    _kernel,
    # 2.14 mends 2-D products of more than 32768 terms, with a kernel that is 6 to 10 times slower (issue 198182)
    skip=_sums_right,
    why="on M1 and M2 a sum over 32767 or more terms adds what lies in memory behind the operands",
    upstream=native(
        "aten/src/ATen/native/mps/operations/LinearAlgebra.mm",
        "mm_out_mps",
        issues(177116, 193487, 195163, 198182),
    ),
    until="the oldest macOS that is supported has Apple's FB24518264 mended",
)
_batches = partial(
    _kernel,
    why="beyond 2^32 elements a batched product repeats its beginning, on M1 and M2 sums over 32767 or more terms are "
    "wrong, and before torch 2.14 beta=0 lets NaN through",
    upstream=native(
        "aten/src/ATen/native/mps/operations/LinearAlgebra.mm", "bmm_out_mps", issues(195163, 197636, 187521)
    ),
    until="issues 195163 and 197636 are closed, and the oldest torch that is supported is 2.14",
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
