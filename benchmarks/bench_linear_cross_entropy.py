"""Loss of a language-model head without its logits, beside `F.linear` and `cross_entropy` in the same run.

    python benchmarks/bench_linear_cross_entropy.py [tokens hidden vocabulary]

Forward and backward to the hidden states, 1024 tokens of a model 1024 wide and 128256 tokens of vocabulary where
nothing else is said; the head is frozen. Time is that of the processor, of one thread, the shortest of three runs, and
half of the rows is compared with all of them. Kernels, bytes and the extra peak, beyond the operands, are the simulated
Mac's, exact. The loss is compared with float64 on the same operands.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from patcher.simulator import start

start("M3 Max 36GB")

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

from patcher.ops.linear_cross_entropy import linear_cross_entropy  # noqa: E402
from patcher.simulator.meter import Meter  # noqa: E402

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
Operands = tuple[Tensor, Tensor, Tensor]


def plain(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """With logits."""
    return functional.cross_entropy(functional.linear(hidden, weight), labels)


def in_float64(hidden: Tensor, weight: Tensor, labels: Tensor) -> float:
    """The loss in float64, in pieces."""
    total = 0.0
    for rows, of_rows in zip(hidden.detach().split(64), labels.split(64), strict=True):
        logits = torch.cat([rows.double() @ part.double().t() for part in weight.split(8192)], 1)
        total += functional.cross_entropy(logits, of_rows, reduction="sum").item()
    return total / int((labels >= 0).sum())


def seconds(loss: Loss, operands: Operands) -> tuple[float, float]:
    """The shortest time of three runs, and the loss."""
    times, value = [], torch.empty(0)
    for _ in range(3):
        operands[0].grad = None
        begin = time.process_time()
        value = loss(*operands)
        value.backward()
        times.append(time.process_time() - begin)
    return min(times), value.item()


def counted(loss: Loss, operands: Operands) -> tuple[int, float, float]:
    """Kernels, MiB moved and MiB of extra peak on the simulated Mac."""
    hidden, weight, labels = (tensor.detach().to("mps") for tensor in operands)
    hidden.requires_grad_()
    before = torch.mps.current_allocated_memory()
    with Meter(modules=False) as meter:
        loss(hidden, weight, labels).backward()
    usage = meter.usage()
    return usage.dispatches, (usage.bytes_read + usage.bytes_written) / 2**20, (usage.peak_bytes - before) / 2**20


def main() -> None:
    """Prints a row for each dtype and share of rows that count."""
    torch.set_num_threads(1)
    tokens, width, vocabulary = (int(size) for size in sys.argv[1:] or ("1024", "1024", "128256"))
    names = (
        "dtype",
        "rows",
        "s with logits",
        "s without",
        "ratio",
        "loss - float64",
        "kernels",
        "MiB moved",
        "MiB extra",
    )
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for dtype in (torch.float32, torch.bfloat16):
        generator = torch.Generator().manual_seed(1)
        hidden = torch.randn(tokens, width, generator=generator).to(dtype).requires_grad_()
        weight = (torch.randn(vocabulary, width, generator=generator) * width**-0.5).to(dtype)
        labels = torch.randint(0, vocabulary, (tokens,), generator=generator)
        whole, _ = seconds(plain, (hidden, weight, labels))
        for share in ("all", "half"):
            if share == "half":
                labels[torch.randperm(tokens, generator=generator)[: tokens // 2]] = -100
            operands = hidden, weight, labels
            ours, value = seconds(linear_cross_entropy, operands)
            kinds = [counted(loss, operands) for loss in (plain, linear_cross_entropy)]
            pairs = " | ".join(f"{a:.6g}, {b:.6g}" for a, b in zip(*kinds, strict=True))
            found = f"{whole:.2f} | {ours:.2f} | {ours / whole:.2f} | {value - in_float64(*operands):.1e} | {pairs}"
            print(f"| {str(dtype)[6:]} | {share} | {found} |", flush=True)


if __name__ == "__main__":
    main()
