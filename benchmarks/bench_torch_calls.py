"""What the patch adds to a call of `Tensor.to`, `Tensor.copy_` and `torch.tensor` on the CPU, in nanoseconds.

    python benchmarks/bench_torch_calls.py

Patched and unpatched calls alternate in one process; the least of 900 short repetitions of each counts, which other
programs of the host seldom disturb. On one core of a shared AMD EPYC, torch 2.13.0, Python 3.11:

| Call | torch, ns | patched, ns | added, ns |
|---|---|---|---|
| `x.to(torch.float32)` | 1225 | 2080 | 855 |
| `x.to('cpu')` | 547 | 1404 | 857 |
| `x.to(torch.float64)` | 2997 | 4016 | 1018 |
| `x.copy_(x)` | 377 | 990 | 613 |
| `torch.tensor(1.0)` | 3291 | 4031 | 741 |

Of what a method adds, 130 ns are the bound object, which C makes for torch's own.
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
