"""What dtype and value an operator gives for every pair of dtypes, and for blocks with Python's numbers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from tests.tiles.registry import DTYPES, FLOATS, INTS, Make, case

SIZE = 16


@triton.jit
def code_of(x):
    """A number for the dtype of x: its width, 100 more if floating, 200 more if signed, 1000 more for bfloat16."""
    code: tl.constexpr = x.dtype.primitive_bitwidth
    offset = 0
    if x.dtype.is_floating():
        offset += 100
    elif x.dtype.is_int_signed():
        offset += 200
    if x.dtype == tl.bfloat16:
        offset += 1000
    return code + offset


@triton.jit
def put(value, row, floats_ptr, ints_ptr, codes_ptr, N: tl.constexpr):
    """Keeps a block's values, exactly, and its dtype."""
    at = row * N + tl.arange(0, N)
    if value.dtype.is_floating():
        tl.store(floats_ptr + at, value.to(tl.float64))
    else:
        tl.store(ints_ptr + at, value.to(tl.int64))
    tl.store(codes_ptr + row, code_of(value))


@triton.jit
def arithmetic_kernel(
    x_ptr, y_ptr, f, i, c, WHOLE: tl.constexpr, SAME_SIGN: tl.constexpr, TRUTH: tl.constexpr, N: tl.constexpr
):
    x = tl.load(x_ptr + tl.arange(0, N))
    y = tl.load(y_ptr + tl.arange(0, N))
    put(x + y, 0, f, i, c, N)
    put(x - y, 1, f, i, c, N)
    put(x * y, 2, f, i, c, N)
    if not TRUTH:
        if SAME_SIGN or not WHOLE:
            put(x / y, 3, f, i, c, N)
            put(x % y, 4, f, i, c, N)
        if SAME_SIGN and WHOLE:
            put(x // y, 5, f, i, c, N)
        put(tl.maximum(x, y), 6, f, i, c, N)
        put(tl.where(y > 3, x, y), 7, f, i, c, N)


@triton.jit
def comparison_kernel(x_ptr, y_ptr, f, i, c, N: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, N))
    y = tl.load(y_ptr + tl.arange(0, N))
    put(x < y, 0, f, i, c, N)
    put(x <= y, 1, f, i, c, N)
    put(x > y, 2, f, i, c, N)
    put(x >= y, 3, f, i, c, N)
    put(x == y, 4, f, i, c, N)
    put(x != y, 5, f, i, c, N)


@triton.jit
def bits_kernel(x_ptr, y_ptr, s_ptr, f, i, c, SHIFT: tl.constexpr, N: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, N))
    y = tl.load(y_ptr + tl.arange(0, N))
    s = tl.load(s_ptr + tl.arange(0, N))
    put(x & y, 0, f, i, c, N)
    put(x | y, 1, f, i, c, N)
    put(x ^ y, 2, f, i, c, N)
    put(~x, 3, f, i, c, N)
    if SHIFT:
        put(x << s, 4, f, i, c, N)
        put(x >> s, 5, f, i, c, N)


@triton.jit
def whole_scalars_kernel(x_ptr, f, i, c, N: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, N))
    put(x + 1, 0, f, i, c, N)
    put(3 - x, 1, f, i, c, N)
    put(x * 2, 2, f, i, c, N)
    put(x / 3, 3, f, i, c, N)
    put(x + True, 4, f, i, c, N)
    put(x % 3, 5, f, i, c, N)
    put(x < 5, 6, f, i, c, N)
    put(7 >= x, 7, f, i, c, N)
    put(-x, 8, f, i, c, N)


@triton.jit
def scalars_kernel(x_ptr, f, i, c, N: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, N))
    put(x + 1.5, 0, f, i, c, N)
    put(0.1 - x, 1, f, i, c, N)
    put(x * 0.3, 2, f, i, c, N)
    put(x / 3.0, 3, f, i, c, N)
    put(tl.where(x > 2, x, 0.1), 4, f, i, c, N)
    put(tl.where(x > 2, x, 0.0) * 1e-3, 5, f, i, c, N)
    put(x == 0.5, 6, f, i, c, N)
    put(x * float("inf"), 7, f, i, c, N)
    put(2.5 * x + 1, 8, f, i, c, N)


def buffers(make: Make, rows: int) -> dict[str, torch.Tensor]:
    """Where `put` keeps things."""
    return {
        "floats": make.out(rows, SIZE, dtype=torch.float64),
        "ints": make.out(rows, SIZE, dtype=torch.int64),
        "codes": make.out(rows, dtype=torch.int32),
    }


def divisors(make: Make, dtype: torch.dtype) -> torch.Tensor:
    """Values without zero."""
    y = make.values(SIZE, dtype)
    return torch.where(y == 0, torch.ones_like(y), y)


@case(each=DTYPES)
def arithmetic(make: Make, left: str) -> dict[str, torch.Tensor]:
    """+ - * / // % maximum where, with every dtype on the right; /, // and % where Triton allows them."""
    found = {}
    for right in DTYPES:
        x, y = make.values(SIZE, getattr(torch, left)), divisors(make, getattr(torch, right))
        whole = left not in FLOATS and right not in FLOATS
        unsigned = [name.startswith("u") for name in (left, right)]
        out = buffers(make, 8)
        arithmetic_kernel[(1,)](x, y, *out.values(), whole, unsigned[0] == unsigned[1], "bool" in (left, right), SIZE)
        found |= {f"{right}.{name}": tensor for name, tensor in out.items()}
    return found


@case(each=DTYPES)
def comparisons(make: Make, left: str) -> dict[str, torch.Tensor]:
    """< <= > >= == != with every dtype on the right."""
    found = {}
    for right in DTYPES:
        x, y = make.values(SIZE, getattr(torch, left)), make.values(SIZE, getattr(torch, right))
        y[: SIZE // 2] = x[: SIZE // 2].to(y.dtype)
        out = buffers(make, 6)
        comparison_kernel[(1,)](x, y, *out.values(), SIZE)
        found |= {f"{right}.{name}": tensor for name, tensor in out.items()}
    return found


@case(each=(*INTS, "bool"))
def bits(make: Make, left: str) -> dict[str, torch.Tensor]:
    """& | ^ ~ with every whole dtype on the right; << and >> with the same dtype on the right."""
    found = {}
    for right in (*INTS, "bool"):
        x, y = make.values(SIZE, getattr(torch, left)), make.values(SIZE, getattr(torch, right))
        s = make.ints(SIZE, low=0, high=8, dtype=getattr(torch, right))
        out = buffers(make, 6)
        bits_kernel[(1,)](x, y, s, *out.values(), left == right != "bool", SIZE)
        found |= {f"{right}.{name}": tensor for name, tensor in out.items()}
    return found


@case(each=(*INTS, *FLOATS))
def whole_scalars(make: Make, dtype: str) -> dict[str, torch.Tensor]:
    """A block with Python's whole numbers keeps its dtype, whatever the number's size in bits."""
    out = buffers(make, 9)
    x = make.values(SIZE, getattr(torch, dtype))
    if dtype.startswith("u"):
        x[0] = 0
    whole_scalars_kernel[(1,)](x, *out.values(), SIZE)
    return out


@case(each=(*INTS, *FLOATS))
def fractions(make: Make, dtype: str) -> dict[str, torch.Tensor]:
    """Whole blocks become float32 beside a fraction; floating blocks keep their dtype."""
    out = buffers(make, 9)
    scalars_kernel[(1,)](make.values(SIZE, getattr(torch, dtype)), *out.values(), SIZE)
    return out


@triton.jit
def arguments_kernel(x_ptr, n, fraction, f, i, c, N: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, N))
    put(x * fraction, 0, f, i, c, N)
    put(fraction - x, 1, f, i, c, N)
    put(tl.where(x > 2, x, fraction), 2, f, i, c, N)
    put(x.to(tl.float32) + n, 3, f, i, c, N)


@case(
    each=("float16", "bfloat16", "float32", "int8"),
    instead="the interpreter leaves a fraction a number of Python, which gives way to a block; compiled, it is an fp32",
)
def fractions_as_arguments(make: Make, dtype: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A fraction that is an argument is a float32: with 16 bits the result is float32."""
    out, x = buffers(make, 4), make.values(SIZE, getattr(torch, dtype))
    arguments_kernel[(1,)](x, 5, 0.3, *out.values(), SIZE)
    wide, fraction = x.float(), torch.tensor(0.3)
    values = [wide * fraction, fraction - wide, torch.where(wide > 2, wide, fraction), wide + 5]
    expected = {
        "floats": torch.stack(values).double(),
        "ints": out["ints"],
        "codes": torch.full_like(out["codes"], 132),
    }
    return out, expected


@triton.jit
def loaded_kernel(x_ptr, y_ptr, f, i, c, N: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, N))
    y = tl.load(y_ptr)
    put(x + y, 0, f, i, c, N)
    put(y * x, 1, f, i, c, N)
    put(x < y, 2, f, i, c, N)
    put(x + tl.program_id(0), 3, f, i, c, N)


@case(each=DTYPES)
def loaded_scalars(make: Make, left: str) -> dict[str, torch.Tensor]:
    """A single element that was loaded counts as a block does, not as a number of Python."""
    found = {}
    for right in ("int8", "uint8", "int32", "int64", "float16", "bfloat16", "float32"):
        out = buffers(make, 4)
        x, y = make.values(SIZE, getattr(torch, left)), make.values(1, getattr(torch, right))
        loaded_kernel[(1,)](x, y, *out.values(), SIZE)
        found |= {f"{right}.{name}": tensor for name, tensor in out.items()}
    return found
