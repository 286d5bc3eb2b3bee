"""What Unsloth's loss of a language-model head takes: as unsloth_zoo ships it, and without logits.

    python benchmarks/bench_unsloth_loss.py [--lengths 512 2048]

``unsloth_fused_ce_loss`` forward and backward, bf16, a frozen head of SmolLM2-135M's size (hidden 576, vocabulary
49152), on the simulated Mac's meter. The extra peak is what it holds beyond the operands; a third of the labels are
ignored in the last column. Metal is the variant of `patcher/ops/softmax_tile.py` that runs on a Mac where it is right
and faster.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

WIDTH, VOCABULARY = 576, 49152
WAYS = {
    "as shipped": {"PATCHER_WITHOUT": "unsloth_zoo.fused_losses"},
    "without logits": {"PATCHER_WITHOUT": ""},
    "without logits, Metal": {"PATCHER_WITHOUT": "", "PATCHER_FORCE": "metal:softmax_tile"},
}
MEASURED = ("kernels", "MiB moved", "MiB of extra peak", "waits", "MiB moved, a third ignored")


def main() -> None:
    """Prints a table for each length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--process", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.process:
        print(json.dumps([measure(length) for length in asked.lengths]))
        return
    found = {}
    for way, variables in WAYS.items():
        command = [sys.executable, __file__, "--process", "--lengths", *map(str, asked.lengths)]
        environment = os.environ | {"HF_HUB_OFFLINE": "1"} | variables
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{way}: {done.stderr[-3000:]}")
        found[way] = json.loads(done.stdout.splitlines()[-1])
    for number, length in enumerate(asked.lengths):
        print(f"\n| {length} tokens | {' | '.join(WAYS)} |\n|{'---|' * (len(WAYS) + 1)}")
        for name in MEASURED:
            print(f"| {name} | {' | '.join(f'{found[way][number][name]:.6g}' for way in WAYS)} |")


def measure(length: int) -> dict[str, float]:
    """Of one row of ``length`` tokens."""
    from patcher import patch_for_mac

    patch_for_mac(simulate="M3 Max 36GB")
    import torch
    import unsloth  # noqa: F401
    from unsloth_zoo.fused_losses import unsloth_fused_ce_loss

    from patcher.simulator.meter import Meter

    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(1, length, WIDTH, generator=generator).to("mps", torch.bfloat16).requires_grad_()
    weight = (torch.randn(VOCABULARY, WIDTH, generator=generator) * WIDTH**-0.5).to("mps", torch.bfloat16)
    labels = torch.randint(0, VOCABULARY, (1, length), generator=generator)

    def counted(labels: torch.Tensor) -> Any:
        on_mps = labels.to("mps")
        for _ in range(2):  # the first one finds nothing ready
            hidden.grad = None
            before = torch.mps.current_allocated_memory()
            with Meter(modules=False) as meter:
                unsloth_fused_ce_loss(None, hidden, weight, None, on_mps).backward()
        usage = meter.usage()
        return usage, (usage.bytes_read + usage.bytes_written) / 2**20, (usage.peak_bytes - before) / 2**20

    usage, moved, extra = counted(labels)
    _, less, _ = counted(labels.masked_fill(torch.arange(length) < length // 3, -100))
    return dict(zip(MEASURED, (usage.dispatches, moved, extra, usage.synchronizations, less), strict=True))


if __name__ == "__main__":
    main()
