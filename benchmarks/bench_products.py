"""What products in half precision cost on this host: by torch's own kernels for them, and in float32.

    python benchmarks/bench_products.py

Shapes of SmolLM2-135M and of small vision and audio models, one thread, medians in milliseconds. ``fp32`` is the same
product of float32; ``native`` torch's kernel for the dtype; ``float32`` a product of float32 copies, rounded.
`Device.products` says which of the two this host takes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from patcher.simulator import start


def gradients(function: Callable[..., Tensor]) -> Callable[..., object]:
    """The function and the gradients of its sum."""

    def run(*inputs: Tensor) -> object:
        leaves = [x.detach().requires_grad_() for x in inputs]
        return torch.autograd.grad(function(*leaves).sum(), leaves)

    return run


PRODUCTS: dict[str, tuple[Callable[..., object], tuple[tuple[int, ...], ...]]] = {
    "a @ b, 512 x 576 x 576": (torch.mm, ((512, 576), (576, 576))),
    "a @ b.t()": (lambda a, b: a @ b.t(), ((512, 576), (576, 576))),
    "linear and gradients": (gradients(F.linear), ((512, 576), (576, 576))),
    "one row, 576 to 1536": (F.linear, ((1, 576), (1536, 576))),
    "bmm, 9 x 256 x 64 x 256": (torch.bmm, ((9, 256, 64), (9, 64, 256))),
    "conv2d, 32 of 28 x 28, 3 x 3": (lambda x, w: F.conv2d(x, w, padding=1), ((2, 32, 28, 28), (32, 32, 3, 3))),
    "conv2d and gradients": (
        gradients(lambda x, w: F.conv2d(x, w, padding=1)),
        ((2, 32, 28, 28), (32, 32, 3, 3)),
    ),
    "attention, 9 x 256 x 64": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        ((1, 9, 256, 64),) * 3,
    ),
}


def milliseconds(function: Callable[..., object], inputs: list[Tensor]) -> float:
    """The median of a third of a second of calls, at least five."""
    function(*inputs)
    times: list[float] = []
    while len(times) < 5 or sum(times) < 333:
        begin = time.perf_counter()
        function(*inputs)
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times)


def main() -> None:
    torch.set_num_threads(1)
    device = start("M3 Max 36GB")
    print("this host:", ", ".join(f"{dtype} {how}" for dtype, how in device.products.items()))
    print(
        f"{'':30}{'fp32':>8}" + "".join(f"{name:>14}" for name in ("bf16 native", "float32", "fp16 native", "float32"))
    )
    for name, (function, shapes) in PRODUCTS.items():
        taken = [milliseconds(function, [torch.randn(shape).to("mps") for shape in shapes])]
        for dtype in (torch.bfloat16, torch.float16):
            for how in ("native", "float32"):
                device.set_products(how)
                taken.append(milliseconds(function, [torch.randn(shape).to("mps", dtype) for shape in shapes]))
        print(f"{name:30}{taken[0]:8.2f}" + "".join(f"{ms:8.2f} {ms / taken[0]:4.1f}x" for ms in taken[1:]), flush=True)


if __name__ == "__main__":
    main()
