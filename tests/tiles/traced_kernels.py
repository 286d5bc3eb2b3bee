"""Kernels and functions that launch them, for test_traced.py: imported with the shim in place."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from patcher.tiles.traced import plans as plans


@triton.jit
def add_reversed(source, target, n, stride, BLOCK: tl.constexpr):
    """``target = source + 1 + reversed(source)``, which reads ``source`` again after a barrier."""
    at = tl.arange(0, BLOCK)
    mask = at < n
    tl.store(target + at, tl.load(source + at * stride, mask) + 1, mask)
    tl.debug_barrier()
    tl.store(target + at, tl.load(target + at, mask) + tl.load(source + (n - 1 - at) * stride, mask), mask)


def out_of_place(x: torch.Tensor) -> torch.Tensor:
    y = torch.empty_like(x)
    add_reversed[(1,)](x * 2, y, x.numel(), 1, 16)
    return y + 1


def by_function(x: torch.Tensor) -> torch.Tensor:
    y = torch.empty_like(x)
    n = x.numel()
    add_reversed[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](x, y, n, 1, BLOCK=triton.next_power_of_2(n))
    return y


def in_place(x: torch.Tensor) -> torch.Tensor:
    add_reversed[(1,)](x, x, x.numel(), 1, 16)
    return x * 2


def rows_of_an_input(x: torch.Tensor) -> torch.Tensor:
    add_reversed[(1,)](x[0], x[1], x.shape[1], x.stride(1), 16)
    return x * 2


def rows_of_a_result(x: torch.Tensor) -> torch.Tensor:
    y = x * 3
    add_reversed[(1,)](y[0], y[1], y.shape[1], y.stride(1), 16)
    return y * 2


def transposed(x: torch.Tensor) -> torch.Tensor:
    y = (x + 1).t()
    z = y.clone()
    add_reversed[(1,)](y[0], z[0], y.shape[1], y.stride(1), 16)
    return z + y


@triton.jit
def count(hits, index, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(hits + tl.load(index + at, at < n), 1, at < n)


def counted(x: torch.Tensor) -> torch.Tensor:
    hits = torch.zeros(4, dtype=torch.int32)
    index = (x * 7).to(torch.int32) % 4
    count[(triton.cdiv(x.numel(), 8),)](hits, index, x.numel(), 8)
    return hits + index.sum()


@triton.jit
def twice(x):
    return x * 2


def clear(args: dict[str, Any]) -> None:
    args["out"].zero_()


@triton.autotune(
    configs=[
        triton.Config({"BLOCK": 3}),
        triton.Config({"BLOCK": 8}, num_warps=2, pre_hook=clear),
        triton.Config({"BLOCK": 16}),
    ],
    key=["n"],
)
@triton.heuristics({"EVEN": lambda args: args["n"] % args["BLOCK"] == 0})
@triton.jit
def scaled(a, b, out, n, scale, fn: tl.constexpr, dtype: tl.constexpr, BLOCK: tl.constexpr, EVEN: tl.constexpr):
    """``out += fn(a) + scale * b``."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at >= 0 if EVEN else at < n
    value = fn(tl.load(a + at, mask)) + scale * tl.load(b + at, mask)
    tl.store(out + at, value.to(dtype) + tl.load(out + at, mask), mask)


def scaled_sum(a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    out = torch.ones_like(a)
    n = a.numel()
    scaled[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](a, b, out, n, scale, fn=twice, dtype=tl.float32)
    return out


def tuned(x: torch.Tensor) -> torch.Tensor:
    return scaled_sum(x, x + 1, 0.3)


class ScaledSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.scale = scale
        return scaled_sum(a, b, scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        gradient = gradients[0].contiguous()
        return scaled_sum(gradient, gradient, 0.0), gradient * ctx.scale, None


def loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return ScaledSum.apply(a * 2, b, 0.3).sum()


def over_a_result(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    add_reversed[(1,)](x, y, x.numel(), 1, 16)
    return (y * y).sum()


@torch.no_grad()
def step(parameter: torch.Tensor) -> None:
    add_reversed[(1,)](parameter, parameter, parameter.numel(), 1, 16)


@triton.jit
def shifted(source, target):
    target.store([0, 0], source.load([1, 0]) + 1)


def with_descriptors(x: torch.Tensor) -> torch.Tensor:
    y, out = x + 1, torch.zeros(2, 4)
    shifted[(1,)](TensorDescriptor.from_tensor(y, [2, 4]), TensorDescriptor.from_tensor(out, [2, 4]))
    return out * 2


@triton.jit
def unknown(x):
    tl.store(x, tl.no_such_function(tl.load(x)))


def adding(number: float) -> Any:
    @triton.jit
    def add(x, VALUE: tl.constexpr = number):
        tl.store(x + tl.program_id(0), tl.load(x + tl.program_id(0)) + VALUE)

    return add


def launched(kernel: Any, x: torch.Tensor) -> torch.Tensor:
    y = x * 1
    kernel[(y.numel(),)](y)
    return y
