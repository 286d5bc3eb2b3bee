"""Attention, forward and backward: memory by length, kernels, bytes and time, beside torch's own.

    python benchmarks/bench_attention.py [LENGTH ...]

32 heads and 8 for keys and values, 128 wide, one sequence in bf16, on the simulated Mac: causal, four packed rows, a
sliding window of a quarter of the length, and soft-capped. The marginal peak is what is held at most beyond query, key,
value and the gradient of the output. Torch's own attention, with the mask that it needs, or the formula where it has no
soft cap, runs up to 2048 tokens, beyond which it takes 10 GiB. The shaders run with fewer tokens, since a simulated Mac
runs them thread by thread. Then the time that one thread of the CPU is busy, in turns, with 8 heads and 2 for keys, 64
wide, in fp32: beside torch's attention on the simulated Mac, and beside the fused one that the CPU has and no Mac.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from patcher.ops import attention as op
from patcher.ops.attention import Pattern, attention, attention_varlen
from patcher.ops.metal import attention as shaders
from patcher.simulator.estimate import estimate
from patcher.simulator.meter import Meter
from patcher.simulator.startup import start
from patcher.simulator.usage import Usage

HEADS, KV_HEADS, HEAD = 32, 8, 128
GOAL = {1024: 0.05, 2048: 0.10, 4096: 0.20, 8192: 0.40}
SHADER_LENGTHS = (128, 256)
STOCK_UP_TO = 2048
MACS = ("M1 16GB", "M3 Max 36GB", "M4 Max 36GB")
ROUNDS = 5

Run = Callable[[Tensor, Tensor, Tensor], Tensor]
CAUSAL, CAPPED = Pattern(HEAD**-0.5, causal=True), Pattern(HEAD**-0.5, causal=True, softcap=30.0)


def packed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    longest = q.shape[2] // 4
    starts = torch.arange(0, q.shape[2] + 1, longest, dtype=torch.int32, device=q.device)
    rows = (x.squeeze(0).transpose(0, 1) for x in (q, k, v))
    return attention_varlen(*rows, starts, starts, longest, longest, CAUSAL).transpose(0, 1).unsqueeze(0)


def window(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attention(q, k, v, Pattern(CAUSAL.scale, causal=True, window=(q.shape[2] // 4 - 1, None)))


OURS: dict[str, Run] = {
    "causal": lambda q, k, v: attention(q, k, v, CAUSAL),
    "packed": packed,
    "window": window,
    "soft cap": lambda q, k, v: attention(q, k, v, CAPPED),
}


def masked(visible: Callable[[Tensor, Tensor, int], Tensor]) -> Run:
    """Torch's attention with a mask of ``L x L``."""

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        at = torch.arange(q.shape[2], device=q.device)
        mask = visible(at[:, None], at, q.shape[2])
        return scaled_dot_product_attention(q, k, v, mask, scale=CAUSAL.scale, enable_gqa=True)

    return run


def capped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As transformers' eager attention of Gemma 2."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    s = torch.tanh(q @ k.transpose(-1, -2) * CAPPED.scale / 30.0) * 30.0
    hidden = torch.full(s.shape[-2:], torch.finfo(q.dtype).min, dtype=q.dtype, device=q.device).triu(1)
    return torch.softmax(s + hidden, -1, dtype=torch.float32).to(q.dtype) @ v


STOCK: dict[str, Run] = {
    "causal": lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True),
    "packed": masked(lambda i, j, n: (j <= i).logical_and(i // (n // 4) == j // (n // 4))),
    "window": masked(lambda i, j, n: (j <= i).logical_and(j > i - n // 4)),
    "soft cap": capped,
}


def inputs(length: int, heads: int, kv_heads: int, head: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Query, key, value and the gradient of the output ``[1, H, L, D]``, as models have them."""
    draw = torch.Generator().manual_seed(length)
    shapes = [(1, length, n, head) for n in (heads, kv_heads, kv_heads, heads)]
    tensors = [torch.randn(shape, generator=draw).to(dtype).to(device).transpose(1, 2) for shape in shapes]
    return [*(x.requires_grad_() for x in tensors[:3]), tensors[3]]


def step(run: Run, given: list[Tensor]) -> None:
    torch.autograd.grad(run(*given[:3]), given[:3], given[3])


def metered(run: Run, length: int) -> tuple[float, Usage]:
    """Marginal peak in GiB, and what was counted."""
    given = inputs(length, HEADS, KV_HEADS, HEAD, torch.bfloat16, "mps")
    gc.collect()
    before = torch.mps.current_allocated_memory()
    with Meter(modules=False) as meter:
        step(run, given)
    usage = meter.usage()
    return (usage.peak_bytes - before) / 2**30, usage


def memory(lengths: list[int]) -> None:
    """Peaks, kernels, MiB and expected times, a line for each length and pattern."""
    print(
        f"| | L | goal, GiB | peak, GiB | torch's | kernels | torch's | MiB moved | torch's | ms on {', '.join(MACS)} |"
    )
    print("|" + "---|" * 10)
    for length in lengths:
        for name, run in OURS.items():
            peak, usage = metered(run, length)
            theirs = metered(STOCK[name], length) if length <= STOCK_UP_TO else None
            times = ", ".join(f"{estimate(usage, mac).seconds * 1e3:.0f}" for mac in MACS)
            cells = [
                name,
                str(length),
                f"{GOAL.get(length, 0):.2f}",
                f"{peak:.3f}",
                f"{theirs[0]:.3f}" if theirs else "",
            ]
            for what in (lambda u: u.dispatches, lambda u: (u.bytes_read + u.bytes_written) >> 20):
                cells += [str(what(usage)), str(what(theirs[1])) if theirs else ""]
            print(f"| {' | '.join(cells)} | {times} |", flush=True)


def as_shaders() -> None:
    """The same of the shaders."""
    op.VARIANT[torch.bfloat16] = shaders
    for length in SHADER_LENGTHS:
        for name, run in OURS.items():
            peak, usage = metered(run, length)
            kernels = sum(counts.dispatches for key, counts in usage.by_op.items() if key.startswith("metal::"))
            print(f"shaders, {name}, {length}: {peak * 1024 / length:.6f} MiB a token, {kernels} launches", flush=True)
    del op.VARIANT[torch.bfloat16]


def times() -> None:
    """Ratios of the least of some times, which are taken in turns."""
    for length in (128, 512, 1024, 2048):
        row = [f"L = {length}:"]
        for device, beside in (("mps", "torch's on the simulated Mac"), ("cpu", "the CPU's fused one")):
            given = inputs(length, 8, 2, 64, torch.float32, device)
            ways = {"ours": OURS["causal"], "torch": STOCK["causal"]}
            least = dict.fromkeys(ways, float("inf"))
            for _ in range(ROUNDS):
                for way, run in ways.items():
                    began = time.process_time()
                    step(run, given)
                    least[way] = min(least[way], time.process_time() - began)
            row.append(f"{least['ours'] / least['torch']:.2f} times {beside}")
        print(" ".join(row), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    start("M3 Max 36GB")
    memory([int(length) for length in sys.argv[1:]] or list(GOAL))
    as_shaders()
    times()
