"""What the patch adds to a call of torch on the CPU, in nanoseconds.

    python benchmarks/bench_torch_calls.py

Patched and unpatched calls alternate in one process; the least of 900 short repetitions of each counts, which other
programs of the host seldom disturb. On one core of a shared AMD EPYC, torch 2.13.0, Python 3.11:

| Call | torch, ns | patched, ns | added, ns | ratio |
|---|---|---|---|---|
| `x.to(torch.float32)` | 1218 | 2109 | 891 | 1.73 |
| `x.to('cpu')` | 546 | 1456 | 910 | 2.67 |
| `x.to(torch.float64)` | 3118 | 4164 | 1046 | 1.34 |
| `x.copy_(x)` | 381 | 1055 | 674 | 2.77 |
| `x.sum()` | 1916 | 2610 | 694 | 1.36 |
| `x.softmax(-1)` | 1253 | 1833 | 580 | 1.46 |
| `x.new_zeros(3)` | 1129 | 1740 | 610 | 1.54 |
| `torch.tensor(1.0)` | 3278 | 3782 | 504 | 1.15 |
| `torch.zeros(3)` | 1172 | 1643 | 471 | 1.40 |
| `torch.zeros(3, dtype=torch.float32)` | 1435 | 1980 | 545 | 1.38 |
| `torch.arange(3)` | 2051 | 2626 | 574 | 1.28 |
| `torch.zeros_like(x)` | 1172 | 1677 | 504 | 1.43 |
| `torch.sum(x)` | 1906 | 2419 | 512 | 1.27 |
| `torch.softmax(x, -1)` | 1327 | 1791 | 464 | 1.35 |

Of what a method adds, some 350 ns are the bound object, which C makes for torch's own.
"""

from __future__ import annotations

import timeit

import torch

from patcher import patch_for_mac

CALLS = (
    "x.to(torch.float32)",
    "x.to('cpu')",
    "x.to(torch.float64)",
    "x.copy_(x)",
    "x.sum()",
    "x.softmax(-1)",
    "x.new_zeros(3)",
    "torch.tensor(1.0)",
    "torch.zeros(3)",
    "torch.zeros(3, dtype=torch.float32)",
    "torch.arange(3)",
    "torch.zeros_like(x)",
    "torch.sum(x)",
    "torch.softmax(x, -1)",
)
NUMBER, REPETITIONS = 200, 300


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
    print("| Call | torch, ns | patched, ns | added, ns | ratio |\n|---|---|---|---|---|")
    for call in CALLS:
        before, after = min(bare[call]), min(patched[call])
        print(f"| `{call}` | {before:.0f} | {after:.0f} | {after - before:.0f} | {after / before:.2f} |")


if __name__ == "__main__":
    main()
