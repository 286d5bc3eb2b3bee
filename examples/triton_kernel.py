"""A script's own Triton kernels: a softmax with its gradient, and a matrix product that is tuned. No model is needed.

python examples/triton_kernel.py
"""

# The one line more:
from patcher import patch_for_mac

patch_for_mac()

import math
import time

import torch
import triton
import triton.language as tl


@triton.jit
def softmax_forward(x, y, columns, BLOCK: tl.constexpr):
    """One row for each program; less its largest element, so that no exponential overflows."""
    at = tl.arange(0, BLOCK)
    start = tl.program_id(0) * columns
    row = tl.load(x + start + at, mask=at < columns, other=-float("inf")).to(tl.float32)
    power = tl.exp(row - tl.max(row, axis=0))
    tl.store(y + start + at, power / tl.sum(power, axis=0), mask=at < columns)


@triton.jit
def softmax_backward(y, dy, dx, columns, BLOCK: tl.constexpr):
    """``dx = y * (dy - sum(y * dy))``."""
    at = tl.arange(0, BLOCK)
    start = tl.program_id(0) * columns
    weight = tl.load(y + start + at, mask=at < columns, other=0.0).to(tl.float32)
    slope = tl.load(dy + start + at, mask=at < columns, other=0.0).to(tl.float32)
    tl.store(dx + start + at, weight * (slope - tl.sum(weight * slope, axis=0)), mask=at < columns)


class Softmax(torch.autograd.Function):
    """Over the last axis."""

    @staticmethod
    def forward(ctx, x):
        x = x.contiguous()
        y, columns = torch.empty_like(x), x.shape[-1]
        softmax_forward[(x.numel() // columns,)](x, y, columns, BLOCK=triton.next_power_of_2(columns))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, dy):
        (y,) = ctx.saved_tensors
        dy, dx, columns = dy.contiguous(), torch.empty_like(y), y.shape[-1]
        softmax_backward[(y.numel() // columns,)](y, dy, dx, columns, BLOCK=triton.next_power_of_2(columns))
        return dx


def tiles(m, n, k, warps):
    return triton.Config({"TILE_M": m, "TILE_N": n, "TILE_K": k, "BAND": 8}, num_warps=warps, num_stages=3)


@triton.autotune(configs=[tiles(128, 256, 64, 8), tiles(64, 64, 32, 4), tiles(32, 64, 32, 2)], key=["m", "n", "k"])
@triton.jit
def product(
    a, b, c, m, n, k, a_row, a_col, b_row, b_col, c_row, c_col,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, TILE_K: tl.constexpr, BAND: tl.constexpr,
):  # fmt: skip
    """One tile of ``c = a @ b`` for each program; down BAND tiles, then right: neighbours share tiles of b."""
    place, across = tl.program_id(0), tl.cdiv(n, TILE_N)
    band = place // (BAND * across)
    height = min(tl.cdiv(m, TILE_M) - band * BAND, BAND)
    within = place % (BAND * across)
    rows = (band * BAND + within % height) * TILE_M + tl.arange(0, TILE_M)[:, None]
    cols = within // height * TILE_N + tl.arange(0, TILE_N)[None, :]
    total = tl.zeros((TILE_M, TILE_N), dtype=tl.float32)
    for start in range(0, k, TILE_K):
        depth = start + tl.arange(0, TILE_K)
        left = tl.load(a + rows * a_row + depth[None, :] * a_col, mask=(rows < m) & (depth[None, :] < k), other=0.0)
        right = tl.load(b + depth[:, None] * b_row + cols * b_col, mask=(depth[:, None] < k) & (cols < n), other=0.0)
        total = tl.dot(left, right, total)
    tl.store(c + rows * c_row + cols * c_col, total.to(c.dtype.element_ty), mask=(rows < m) & (cols < n))


def matmul(a, b):
    (m, k), n = a.shape, b.shape[1]
    c = torch.empty(m, n, dtype=a.dtype, device=a.device)

    def grid(meta):
        return (triton.cdiv(m, meta["TILE_M"]) * triton.cdiv(n, meta["TILE_N"]),)

    product[grid](a, b, c, m, n, k, *a.stride(), *b.stride(), *c.stride())
    return c


def compare(label, function, expected, allowed):
    """Runs twice, times the second run, and prints the largest error beside what rounding explains."""
    for _ in range(2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        found = function()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    share = ((found.detach().cpu().double() - expected).abs() / allowed).max().item()
    print(f"{label + ':':<15} {share:.2f} of the error that rounding may make, {1000 * seconds:.0f} ms")
    assert share <= 1, f"{label} is wrong"
    return found


torch.manual_seed(3407)
U = 2**-24  # how much fp32 rounds, relative to the number
x, dy = 4 * torch.randn(512, 1000) + 1000, torch.randn(512, 1000)
exact = x.double().requires_grad_()
expected = exact.softmax(-1)
weight, spread = expected.detach(), (exact.amax(-1, keepdim=True) - exact).detach()
# Above and below the line: the difference in the exponent and 4 for exp; then each level of the sum, and the division.
relative = U * (spread + spread.max() + 8 + math.log2(1024) + 1)
on_gpu = x.cuda().requires_grad_()
y = compare("softmax", lambda: Softmax.apply(on_gpu), weight, relative * weight)

(slope,) = torch.autograd.grad(expected, exact, dy.double())
size = weight * (dy.abs() + (weight * dy.abs()).sum(-1, keepdim=True))
compare(
    "its gradient",
    lambda: torch.autograd.grad(y, on_gpu, dy.cuda(), retain_graph=True)[0],
    slope,
    3 * relative.max() * size,
)

a, b = torch.randn(1100, 173).half(), torch.randn(300, 173).half().t()
exact, size = a.double() @ b.double(), a.double().abs() @ b.double().abs()
# Products of fp16 are exact in fp32; a sum may be cut off, not rounded: 2 U. The result is rounded to fp16.
compare("matrix product", lambda: matmul(a.cuda(), b.cuda()), exact, 2 * U * 173 * size + 2**-11 * exact.abs())
print(f"configuration:  {product.best_config}")
