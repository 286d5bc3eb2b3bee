"""The variants of every op: which are right on this machine, their times, and which one runs."""

from __future__ import annotations

from functools import partial

from patcher.ops.variants import findings, names
from patcher.ops.variants.choice import DTYPES, Choice
from patcher.ops.variants.findings import Finding
from patcher.verify.check import MPS, Check, Situation, Skipped


def table(op: str, here: Situation) -> str:
    """A line for each type: what was found out of each variant, and which one runs."""
    if here.machine.simulated and not here.full:
        raise Skipped("a simulated Mac runs shaders thread by thread; --full tries them")
    lines = []
    for dtype in DTYPES:
        chosen = Choice(op)[dtype]
        runs = names.TORCH if chosen is None else chosen.__name__.split(".")[-2]
        told = (f"{variant} {_told(finding)}" for variant, finding in findings.of(op, dtype).items())
        lines.append(f"{str(dtype).removeprefix('torch.')}: {runs} runs; {', '.join(told)}")
    return "\n".join(lines)


def _told(finding: Finding) -> str:
    if finding.wrong:
        return f"is refused ({finding.wrong})"
    times = (f"{1e3 * seconds:.3g} ms at {width}" for width, seconds in finding.seconds.items())
    return " ".join(("is right", f"({'; '.join(times)})" if finding.seconds else "")).strip()


CHECKS = tuple(Check("kernels", f"variants of {op}", partial(table, op), needs=(MPS,)) for op in names.OPS)
