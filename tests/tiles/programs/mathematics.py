"""Functions of one and more values."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.testing import assert_close
from triton.language.extra import libdevice

from tests.tiles.registry import DTYPES, EPS32, EPS64, Make, case

EXACT = ("floor", "ceil", "abs")
CLOSE = ("exp", "exp2", "log", "log2", "sin", "cos", "rsqrt", "erf", "sigmoid")
ULPS = "numpy's float32 functions are within 4 units in the last place, torch's within 1, of values near 1 or less"


@triton.jit
def unary_kernel(x_ptr, out_ptr, NAME: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    if NAME == "exp":
        y = tl.exp(x)
    elif NAME == "exp2":
        y = tl.math.exp2(x)
    elif NAME == "log":
        y = tl.log(x)
    elif NAME == "log2":
        y = tl.math.log2(x)
    elif NAME == "sin":
        y = tl.sin(x)
    elif NAME == "cos":
        y = tl.math.cos(x)
    elif NAME == "sqrt":
        y = tl.sqrt(x)
    elif NAME == "sqrt_rn":
        y = tl.math.sqrt_rn(x)
    elif NAME == "rsqrt":
        y = tl.math.rsqrt(x)
    elif NAME == "erf":
        y = tl.math.erf(x)
    elif NAME == "floor":
        y = tl.floor(x)
    elif NAME == "ceil":
        y = tl.math.ceil(x)
    elif NAME == "abs":
        y = tl.abs(x)
    else:
        y = tl.sigmoid(x)
    tl.store(out_ptr + at, y)


def arguments_of(make: Make, name: str, dtype: torch.dtype) -> torch.Tensor:
    """Numbers that the function takes."""
    if name in ("log", "log2", "sqrt", "sqrt_rn", "rsqrt"):
        return make.positive(64, dtype=dtype)
    return make.floats(64, dtype=dtype)


def unary(make: Make, name: str, dtype: torch.dtype) -> torch.Tensor:
    """The function of random numbers, checked against torch."""
    x, out = arguments_of(make, name, dtype), make.out(64, dtype=dtype)
    unary_kernel[(1,)](x, out, name, 64)
    close = 8 * torch.finfo(dtype).eps
    assert_close(out, getattr(torch, name.removesuffix("_rn"))(x), rtol=close, atol=close)
    return out


@case(each=EXACT)
def exact(make: Make, name: str) -> torch.Tensor:
    """What has one answer, in float32."""
    return unary(make, name, torch.float32)


@case(each=EXACT)
def exact_in_double(make: Make, name: str) -> torch.Tensor:
    """What has one answer, in float64."""
    return unary(make, name, torch.float64)


@case(each=("sqrt", "sqrt_rn"), rtol=EPS32, because="torch takes MKL's root on the CPU, which is within 1 unit")
def roots(make: Make, name: str) -> torch.Tensor:
    """Square roots in float32."""
    return unary(make, name, torch.float32)


@case(rtol=EPS64, because="as in float32")
def root_in_double(make: Make) -> torch.Tensor:
    """sqrt in float64."""
    return unary(make, "sqrt", torch.float64)


@case(each=CLOSE, rtol=4 * EPS32, atol=4 * EPS32, because=ULPS)
def close(make: Make, name: str) -> torch.Tensor:
    """Functions in float32."""
    return unary(make, name, torch.float32)


@case(each=CLOSE, rtol=4 * EPS64, atol=4 * EPS64, because="as in float32")
def close_in_double(make: Make, name: str) -> torch.Tensor:
    """Functions in float64."""
    return unary(make, name, torch.float64)


@case(rtol=4 * EPS32, because="log of numpy and of torch")
def logarithm_of_edges(make: Make) -> torch.Tensor:
    """log of 0, infinity, negative numbers and NaN."""
    x = torch.tensor([0.0, -0.0, float("inf"), -1.0, float("nan"), 1.0, 1e-38, 3e38])
    out = make.out(8)
    unary_kernel[(1,)](x, out, "log", 8)
    return out


@case(rtol=4 * EPS32, because="exp of numpy and of torch")
def exponential_of_edges(make: Make) -> torch.Tensor:
    """exp of infinities, of NaN, and of what over- and underflows."""
    x = torch.tensor([float("-inf"), float("inf"), float("nan"), 0.0, 88.0, 89.0, -104.5, 1.0])
    out = make.out(8)
    unary_kernel[(1,)](x, out, "exp", 8)
    return out


@triton.jit
def absolute_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    tl.store(out_ptr + at, tl.abs(x))
    tl.store(out_ptr + N + at, x.abs())


@case(each=[dtype for dtype in DTYPES if dtype != "bool"])
def absolute(make: Make, dtype: str) -> torch.Tensor:
    """abs of every dtype but bool, as function and as method."""
    kind = getattr(torch, dtype)
    x, out = make.values(16, kind), make.out(2, 16, dtype=kind)
    absolute_kernel[(1,)](x, out, 16)
    return out


@triton.jit
def several_kernel(x_ptr, y_ptr, z_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    y = tl.load(y_ptr + at)
    z = tl.load(z_ptr + at)
    tl.store(out_ptr + at, tl.math.fdiv(x, y))
    tl.store(out_ptr + N + at, tl.math.div_rn(x, y))
    tl.store(out_ptr + 2 * N + at, x.to(tl.float64).to(tl.float32) / y)
    tl.store(out_ptr + 3 * N + at, tl.clamp(x, tl.minimum(y, z), tl.maximum(y, z)))


@case
def of_several_values(make: Make) -> torch.Tensor:
    """Divisions and clamp between blocks."""
    x, y, z, out = make.floats(32), make.positive(32), make.floats(32), make.out(4, 32)
    several_kernel[(1,)](x, y, z, out, 32)
    assert_close(out[0], x / y, rtol=0, atol=0)
    return out


@triton.jit
def fma_kernel(x_ptr, y_ptr, z_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.fma(tl.load(x_ptr + at), tl.load(y_ptr + at), tl.load(z_ptr + at)))


@case(
    rtol=4 * EPS32, atol=2 * EPS32, because="torch has no fused operation in float32: the product is rounded once more"
)
def fused_multiply_add(make: Make) -> torch.Tensor:
    """fma rounds once."""
    out = make.out(32)
    fma_kernel[(1,)](make.floats(32), make.floats(32), make.positive(32), out, 32)
    return out


@triton.jit
def high_kernel(x_ptr, y_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.umulhi(tl.load(x_ptr + at), tl.load(y_ptr + at)))


@case(each=("int32", "uint32", "int64", "uint64"))
def high_half_of_product(make: Make, dtype: str) -> torch.Tensor:
    """umulhi takes both as unsigned."""
    kind = getattr(torch, dtype)
    x, y = (make.ints(32, low=-(2**63), high=2**63 - 1, dtype=torch.int64).to(kind) for _ in range(2))
    out = make.out(32, dtype=kind)
    high_kernel[(1,)](x, y, out, 32)
    return out


@triton.jit
def softmax_kernel(x_ptr, out_ptr, M: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    x = tl.load(x_ptr + at)
    tl.store(out_ptr + at, tl.softmax(x))


@case(rtol=8 * EPS32, because="exp within 4 units each, and a sum of 8 terms in another order")
def softmax_function(make: Make) -> torch.Tensor:
    """``tl.softmax`` is along the first axis by default."""
    x, out = make.floats(8, 16), make.out(8, 16)
    softmax_kernel[(1,)](x, out, 8, 16)
    assert_close(out, torch.softmax(x, 0))
    return out


LIBDEVICE = "the interpreter cannot call libdevice"


@triton.jit
def libdevice_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, libdevice.tanh(tl.load(x_ptr + at)))


@case(rtol=4 * EPS32, because="tanh within 2 units", instead=LIBDEVICE)
def libdevice_tanh(make: Make) -> tuple[torch.Tensor, torch.Tensor]:
    """libdevice.tanh."""
    x, out = make.floats(32), make.out(32)
    libdevice_kernel[(1,)](x, out, 32)
    return out, torch.tanh(x)


exponential = tl.exp


@triton.jit
def alias_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, exponential(tl.load(x_ptr + at)))


@case(
    rtol=4 * EPS32,
    because="exp within 2 units",
    instead="the interpreter replaces names of triton.language, not copies of them",
)
def function_by_another_name(make: Make) -> tuple[torch.Tensor, torch.Tensor]:
    """A function of the language that the module has under its own name."""
    x, out = make.floats(32), make.out(32)
    alias_kernel[(1,)](x, out, 32)
    return out, x.exp()


@triton.jit
def bessel_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    tl.store(out_ptr + at, libdevice.cyl_bessel_i0(x))
    tl.store(out_ptr + N + at, libdevice.cyl_bessel_i1(x))
    tl.store(out_ptr + 2 * N + at, libdevice.j0(x))
    tl.store(out_ptr + 3 * N + at, libdevice.j1(x))
    tl.store(out_ptr + 4 * N + at, libdevice.y0(x))
    tl.store(out_ptr + 5 * N + at, libdevice.y1(x))


@case(instead=LIBDEVICE, rtol=8 * EPS32, atol=4 * EPS32, because="polynomials of up to nine terms in fp32")
def libdevice_bessel(make: Make) -> tuple[torch.Tensor, torch.Tensor]:
    """Bessel functions, beside the same in fp64."""
    x, out = make.positive(64), make.out(6, 64)
    bessel_kernel[(1,)](x, out, 64)
    special, wide = torch.special, x.double()
    functions = (special.i0, special.i1, special.bessel_j0, special.bessel_j1, special.bessel_y0, special.bessel_y1)
    return out, torch.stack([function(wide) for function in functions]).float()
