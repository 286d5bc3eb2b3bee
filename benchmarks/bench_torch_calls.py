"""What the patch adds to a call of `Tensor.to`, `Tensor.copy_` and `torch.tensor` on the CPU, in nanoseconds.

    python benchmarks/bench_torch_calls.py

Patched and unpatched calls alternate in one process; the least of 15 repetitions of each counts.
"""

from __future__ import annotations

import timeit

import torch

from patcher import patch_for_mac

CALLS = ("x.to(torch.float32)", "x.to('cpu')", "x.to(torch.float64)", "x.copy_(x)", "torch.tensor(1.0)")
NUMBER, REPETITIONS = 20_000, 5


def nanoseconds(call: str) -> float:
    """Of one call, the least of `REPETITIONS`."""
    names = {"x": torch.ones(3), "torch": torch}
    return min(timeit.repeat(call, globals=names, number=NUMBER, repeat=REPETITIONS)) / NUMBER * 1e9


def main() -> None:
    bare, patched = {call: [] for call in CALLS}, {call: [] for call in CALLS}
    for _ in range(3):
        for call in CALLS:
            bare[call].append(nanoseconds(call))
        handle = patch_for_mac(simulate="M3 Max 36GB")
        for call in CALLS:
            patched[call].append(nanoseconds(call))
        handle.undo()
    print("| Call | torch, ns | patched, ns | added, ns |\n|---|---|---|---|")
    for call in CALLS:
        before, after = min(bare[call]), min(patched[call])
        print(f"| `{call}` | {before:.0f} | {after:.0f} | {after - before:.0f} |")


if __name__ == "__main__":
    main()
