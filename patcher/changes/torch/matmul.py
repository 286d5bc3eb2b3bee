"""Matrix products are right where Metal's are not: long sums, huge batches, repeated rows, what ``beta=0`` ignores."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, issues, native
from patcher.engine.model import Kernel
from patcher.macs.machine import Machine
from patcher.training.rules import torch_before


def _sums_right(machine: Machine) -> str | None:
    generation = machine.generation
    if generation is None or generation < 3 or repeats_wrongly(machine):
        return None
    return f"M{generation} adds long sums up rightly, and macOS {machine.macos[0]} repeated rows"  # type: ignore[index]


def repeats_wrongly(machine: Machine) -> bool:
    """Whether operands that repeat a row are multiplied wrongly: on macOS 27, as before 26.4 with torch before 2.12."""
    if machine.macos is None or machine.macos >= (27, 0):
        return True
    return torch_before(machine, 2, 12) and (15, 0) <= machine.macos < (26, 4)


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
    why="on M1 and M2 a sum over 32767 or more terms adds what lies in memory behind the operands, and on macOS 27 "
    "operands that repeat a row, as the gradient of a sum does, give zeros for 15 rows of 16",
    upstream=native(
        "aten/src/ATen/native/mps/operations/LinearAlgebra.mm",
        "mm_out_mps",
        issues(177116, 193487, 195163, 198182, 180201),
    ),
    until="the oldest macOS that is supported has Apple's FB24518264 mended, and issue 180201",
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
