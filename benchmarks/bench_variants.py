"""What it costs a call of an op that it has variants, on the host, once one is chosen.

    python benchmarks/bench_variants.py

The line with which every op of `patcher.ops` that has variants begins, on a tensor on the simulated Mac, beside the
same function without it; and for a tensor on the CPU, where none is looked for.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

import torch
from torch.compiler import is_compiling

from patcher.ops.variants.choice import Choice
from patcher.simulator import startup

RUNS, TURNS = 20_000, 100

VARIANT = Choice("rms_norm")


def without(x: torch.Tensor) -> torch.Tensor:
    """An op that has no variants."""
    return x


def choosing(x: torch.Tensor) -> torch.Tensor:
    """An op that has some; torch is chosen."""
    if x.is_mps and not is_compiling() and (variant := VARIANT[x.dtype]):
        return variant.rms_norm(x)  # type: ignore[no-any-return]
    return x


def nanoseconds(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> float:
    """The least time of a call."""
    return 1e9 * min(timeit.repeat(lambda: function(x), number=RUNS, repeat=TURNS)) / RUNS


def main() -> None:
    """Prints both."""
    startup.start("M3 Max 36GB")
    for device in ("mps", "cpu"):
        x = torch.ones(4, 8, device=device)
        choosing(x)
        print(f"{device}: {nanoseconds(choosing, x) - nanoseconds(without, x):.0f} ns a call")


if __name__ == "__main__":
    main()
