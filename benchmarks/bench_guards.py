"""What the guards of torch's operators cost on the simulated Mac: processor time per call, without and with them.

    python benchmarks/bench_guards.py [--calls N]

An M1, which gets every guard. Tensors of 4 x 4, so that little but the call is measured; of seven rounds the fastest.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch.nn.functional import embedding, linear, scaled_dot_product_attention

from patcher import patch_for_mac
from patcher.simulator import start

MAC = "M1 8GB"


def calls() -> dict[str, Callable[[], object]]:
    """The guarded operators on the smallest operands."""
    square, batch, row = (torch.ones(*shape, device="mps") for shape in ((4, 4), (2, 4, 4), (4,)))
    host, ids = torch.ones(4, 4), torch.zeros(4, dtype=torch.int64)
    on_mps, heads = ids.to("mps"), square.view(1, 1, 4, 4)
    return {
        "mm": lambda: torch.mm(square, square),
        "bmm": lambda: torch.bmm(batch, batch),
        "addmm": lambda: torch.addmm(row, square, square),
        "linear, 2-D": lambda: linear(square, square, row),
        "linear, 3-D": lambda: linear(batch, square, row),
        "linear's backward": lambda: torch.ops.aten.linear_backward(square, square, square, [True, True, True]),
        "embedding": lambda: embedding(on_mps, square),
        "cross entropy": lambda: torch.ops.aten.nll_loss_forward(square, on_mps, None, 1, -100),
        "cat": lambda: torch.cat([square, square]),
        "sort": lambda: torch.sort(square),
        "attention": lambda: scaled_dot_product_attention(heads, heads, heads),
        "exponential_": lambda: square.exponential_(),
        "Tensor.to": lambda: host.to("mps"),
        "Tensor.to of ids": lambda: ids.to("mps"),
        "copy_": lambda: square.copy_(row),
    }


def microseconds(call: Callable[[], object], number: int) -> float:
    """Processor time of one call, in microseconds: the fastest of seven rounds."""
    rounds = []
    for _ in range(7):
        began = time.process_time()
        for _ in range(number):
            call()
        rounds.append(time.process_time() - began)
    return min(rounds) / number * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000, metavar="N")
    number = parser.parse_args().calls
    torch.set_num_threads(1)
    start(MAC)
    plain = {name: microseconds(call, number) for name, call in calls().items()}
    with patch_for_mac(simulate=MAC):
        guarded = {name: microseconds(call, number) for name, call in calls().items()}
    for name, before in plain.items():
        print(f"{name:18} {before:6.2f} us without, {guarded[name]:6.2f} us with: {guarded[name] - before:+.2f}")


if __name__ == "__main__":
    main()
