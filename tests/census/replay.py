"""Launches again in Triton's interpreter, and compared: ``python -m tests.census.replay IN OUT``."""

from __future__ import annotations

import sys
import traceback
import warnings
from typing import Any

import torch

from tests.census import arguments, upstream
from tests.census.recording import import_calls
from tests.census.records import Compared, Launch, Record
from tests.census.registry import CALLS, Call
from tests.tiles.registry import Make

EPS = {torch.float64: 2.0**-52, torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}


def main(records: str, out: str) -> None:
    """IN is a file of `recording`; OUT becomes one of `Compared`, a list by call."""
    warnings.simplefilter("ignore")
    import_calls()
    found: dict[str, Record] = torch.load(records, weights_only=False)[0]
    replayed = {name: [] if CALLS[name].by_address else record.launches for name, record in found.items()}
    torch.save({name: [compared(launch, CALLS[name]) for launch in some] for name, some in replayed.items()}, out)


def compared(launch: Launch, call: Call) -> Compared:
    """One launch."""
    try:
        if launch.kernel not in upstream.KERNELS:  # it is made by a function
            call.run(Make(call.name), call.dtype)
        kernel = upstream.KERNELS[launch.kernel]
        complete_names(kernel.fn.__globals__)
        args, named = launch.before.made()
        written = arguments.tensors((args, named))
        kernel.run(*args, grid=launch.grid, warmup=False, **named)
    except Exception:  # noqa: BLE001 - the traceback is the answer
        return Compared(
            launch.kernel, f"in the interpreter: {traceback.format_exc()[-300:]}", "", False, launch.why, 0.0
        )
    right = arguments.tensors((args, named))
    told, worst = difference(launch.after, right, written, call)
    metal, worse = difference(launch.metal, right, written, call) if launch.metal is not None else ("", 0.0)
    return Compared(launch.kernel, told, metal, launch.metal is not None, launch.why, max(worst, worse))


def complete_names(names: dict[str, Any]) -> None:
    """What the interpreter does not replace in a kernel's module: copies of the language's functions, and ``range``."""
    import triton.language as tl

    from tests.oracle.cases.grouped_gemm import Index

    names["range"] = lambda *bounds: map(Index, range(*bounds))
    for name, value in list(names.items()):
        if getattr(value, "__triton_builtin__", False):
            names[name] = lambda *args, original=value.__name__, **named: getattr(tl, original)(*args, **named)


def difference(
    found: list[torch.Tensor], right: list[torch.Tensor], before: list[torch.Tensor], call: Call
) -> tuple[str, float]:
    """What is wrong, empty if nothing is, and the largest difference as a part of what is allowed."""
    told, worst = [], 0.0
    for number, (a, b, was) in enumerate(zip(found, right, before, strict=True)):
        ratio = excess(a, b, was, call)
        worst = max(worst, ratio)
        if ratio > 1:
            told.append(f"tensor {number}, {a.dtype} of {tuple(a.shape)}: {ratio:.3g} times what is allowed")
    return "; ".join(told), worst


def excess(found: torch.Tensor, right: torch.Tensor, before: torch.Tensor, call: Call) -> float:
    """The largest difference as a part of what is allowed.

    Whole numbers agree bit for bit. For others: a rounding of what is stored, and the rounding of a sum of ``terms``
    terms in fp32, relative to the largest number that is written; of the narrow type where the kernel rounds to it.
    """
    if not found.dtype.is_floating_point:
        return 0.0 if torch.equal(found, right) else float("inf")
    if found.element_size() == 1:
        found, right, before = found.float(), right.float(), before.float()
    a, b = found.double(), right.double()
    same = (a == b) | (a.isnan() & b.isnan())
    if same.all():
        return 0.0
    changed = (b != before.double()) & b.isfinite()
    scale = b[changed].abs().max().item() if changed.any() else 0.0
    stored = EPS.get(right.dtype, 2.0**-3)
    summed = call.terms * EPS[torch.float32] + (EPS[call.dtype] if call.narrow else 0.0)
    allowed = stored * b.abs() + summed * scale
    ratio = torch.where(same, 0.0, (a - b).abs() / allowed.clamp_min(1e-300))
    ratio = torch.where(ratio.isnan(), torch.inf, ratio)
    return ratio.max().item()


if __name__ == "__main__":
    main(*sys.argv[1:])
