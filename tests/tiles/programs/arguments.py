"""What tensors and numbers a launch may be given."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from tests.tiles.registry import Make, case


@triton.jit
def double_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=at < n) * 2, mask=at < n)


@case
def leaves_that_require_a_gradient(make: Make) -> torch.Tensor:
    """Kernels write into parameters, and no gradient is recorded."""
    x, out = make.floats(16).requires_grad_(), torch.nn.Parameter(make.out(16))
    double_kernel[(1,)](x, out, 16, 16)
    double_kernel[(1,)](x, x, 16, 16)
    assert out.is_leaf and x.is_leaf and out.grad_fn is None
    return torch.cat([out.detach(), x.detach()])


@case
def result_that_requires_a_gradient(make: Make) -> torch.Tensor:
    """A tensor with a history is read and written as it is."""
    x = make.floats(16).requires_grad_()
    y = x * 3
    out = make.out(16)
    double_kernel[(1,)](y, out, 16, 16)
    double_kernel[(1,)](out, y, 16, 16)
    return torch.cat([out, y.detach()])


class Doubled(torch.autograd.Function):
    """Twice a tensor, by a kernel both ways."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:  # type: ignore[no-untyped-def]
        out = torch.empty_like(x)
        double_kernel[(triton.cdiv(x.numel(), 16),)](x, out, x.numel(), BLOCK=16)
        return out

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[no-untyped-def]
        grad = grad.contiguous()
        double_kernel[(triton.cdiv(grad.numel(), 16),)](grad, grad, grad.numel(), BLOCK=16)
        return grad


@case
def within_autograd(make: Make) -> list[torch.Tensor]:
    """A launch in forward and one, in place, in backward."""
    x = make.floats(5, 8).requires_grad_()
    y = Doubled.apply(x)
    (y * y).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, 8 * x)
    return [y.detach(), x.grad]


@case
def tensors_of_inference_mode(make: Make) -> torch.Tensor:
    """Tensors made in inference mode, written after it."""
    with torch.inference_mode():
        x, out = make.floats(16), make.out(16)
    double_kernel[(1,)](x, out, 16, 16)
    return out.clone()


@case
def empty_grids_and_tensors(make: Make) -> list[torch.Tensor]:
    """A grid of no program does nothing; tensors without elements are arguments too."""
    x, out, empty = make.floats(16), make.out(16), torch.empty(0)
    double_kernel[(0,)](x, out, 16, 16)
    double_kernel[(0, 3)](x, out, 16, 16)
    double_kernel[(1,)](empty, empty, 0, 16)
    double_kernel[(1,)](empty, out, 0, 16)
    return [out, empty]


@triton.jit
def strided_kernel(x_ptr, out_ptr, xr, xc, M: tl.constexpr, N: tl.constexpr):
    rows = tl.arange(0, M)[:, None]
    columns = tl.arange(0, N)[None, :]
    tl.store(out_ptr + rows * N + columns, tl.load(x_ptr + rows * xr + columns * xc))


@case
def expanded_tensors(make: Make) -> torch.Tensor:
    """A stride of 0 reads one element again."""
    row, column, out = make.floats(8), make.floats(4, 1), make.out(3, 4, 8)
    for x, target in zip((row.expand(4, 8), column.expand(4, 8), row[:1].expand(4, 8)), out, strict=True):
        strided_kernel[(1,)](x, target, *x.stride(), 4, 8)
        assert torch.equal(target, x)
    return out


@triton.jit
def bits_kernel(x_ptr, bits_ptr, bytes_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(x_ptr + at, tl.load(x_ptr + at) * 2)
    tl.store(bits_ptr + at, tl.load(bits_ptr + at) ^ 0x40000000)
    tl.store(x_ptr + at, tl.load(x_ptr + at) + 1)
    tl.store(bytes_ptr + 4 * at, tl.load(bytes_ptr + 4 * at + 1))


@case
def one_storage_in_three_dtypes(make: Make) -> torch.Tensor:
    """Views of other dtypes see each other's stores."""
    x = make.floats(16)
    bits_kernel[(1,)](x, x.view(torch.int32), x.view(torch.uint8), 16)
    return x


@case
def single_elements(make: Make) -> torch.Tensor:
    """Tensors without dimensions, and a view of one element, are pointers."""
    x, out = torch.tensor(1.5), make.out(3)
    double_kernel[(1,)](x, out[1], 1, 1)
    double_kernel[(1,)](out[1:2], x, 1, 1)
    return torch.cat([out, x.view(1)])


@triton.jit
def signs_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    tl.store(out_ptr + at, tl.abs(x))
    tl.store(out_ptr + N + at, x * 1.0)
    tl.store(out_ptr + 2 * N + at, tl.where(x == 0, x, 5.0))
    tl.store(out_ptr + 3 * N + at, x.to(tl.float64).to(tl.float16).to(tl.float32))


@case
def signs_of_zero(make: Make) -> torch.Tensor:
    """-0 stays -0, bit for bit."""
    x, out = torch.tensor([0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), 1e-45, -1e-45]), make.out(4, 8)
    signs_kernel[(1,)](x, out, 8)
    return out


@triton.jit
def mixed_kernel(x_ptr, y_ptr, out_ptr, n, N: tl.constexpr):
    at = tl.arange(0, N)
    mask = at < n
    x = tl.load(x_ptr + at, mask=mask, other=0)
    y = tl.load(y_ptr + at, mask=mask, other=0)
    tl.store(out_ptr + at, x * y + x - y, mask=mask)


@case
def one_kernel_for_many_dtypes(make: Make) -> list[torch.Tensor]:
    """A kernel is specialized anew for each combination of dtypes."""
    outputs = []
    for left, right, kind in (
        (torch.float16, torch.float32, torch.float32),
        (torch.int8, torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16, torch.float32),
        (torch.int64, torch.int32, torch.int64),
        (torch.bool, torch.float32, torch.bfloat16),
        (torch.uint8, torch.int16, torch.int8),
    ):
        out = make.out(16, dtype=kind)
        mixed_kernel[(1,)](make.values(16, left), make.values(16, right), out, 11, 16)
        outputs.append(out)
    return outputs


@triton.jit
def constants_kernel(out_ptr, pair, N: tl.constexpr):
    tl.static_assert(pair[1][0] == 3)
    tl.store(out_ptr + tl.arange(0, N), tl.arange(0, N) * pair[1][0] + pair[0])


@case
def constants_in_tuples(make: Make) -> torch.Tensor:
    """``tl.constexpr`` within a tuple is known at compile time."""
    out = make.out(8, dtype=torch.int32)
    constants_kernel[(1,)](out, (5, (tl.constexpr(3),)), 8)
    return out


@triton.jit
def classes_kernel(x, out_ptr):
    if hasattr(x, "dtype") and isinstance(x.dtype, tl.pointer_type) and (x.dtype.element_ty == tl.int32):
        tl.store(out_ptr, tl.load(x))
    else:
        tl.store(out_ptr, -1)


@case
def class_of_a_type(make: Make) -> list[torch.Tensor]:
    """A pointer to integers, one to other numbers, and a number."""
    out = [make.out(1, dtype=torch.int32) for _ in range(3)]
    for x, into in zip((make.ints(1), make.floats(1), 5), out, strict=True):
        classes_kernel[(1,)](x, into)
    return out
