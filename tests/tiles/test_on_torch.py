"""What programs compute: arithmetic of every type, memory, ways that part, reductions, against torch and Python."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from patcher.errors import KernelFailed, KernelNotSupported
from patcher.tiles import types
from patcher.tiles.on_torch import plan
from patcher.tiles.on_torch.maps import apply
from patcher.tiles.program import MAPS
from tests.tiles.jit import jit, libdevice, tl


@jit
def binary(x, y, out, OP: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    a, b = tl.load(x + at), tl.load(y + at)
    if OP == "+":
        r = a + b
    elif OP == "-":
        r = a - b
    elif OP == "*":
        r = a * b
    elif OP == "/":
        r = a / b
    elif OP == "//":
        r = a // b
    elif OP == "%":
        r = a % b
    elif OP == ">>":
        r = a >> (b & 7)
    elif OP == "<":
        r = a < b
    else:
        r = tl.maximum(a, b)
    tl.store(out + at, r)


def computed(op: str, x: torch.Tensor, y: torch.Tensor, out: torch.dtype) -> torch.Tensor:
    result = torch.zeros(len(x), dtype=out)
    binary[(1,)](x, y, result, OP=op, N=len(x))
    return result


INTEGERS = [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64]


def exact(op: str, a: int, b: int, dtype: torch.dtype) -> int:
    bits = dtype.itemsize * 8
    quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    value = {
        "+": a + b,
        "-": a - b,
        "*": a * b,
        "//": quotient,
        "%": a - quotient * b,
        ">>": a >> (b & 7),
        "<": int(a < b),
        "max": max(a, b),
    }[op] % 2**bits
    return value - 2**bits if dtype.is_signed and value >= 2 ** (bits - 1) else value


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_wrap_and_truncate_as_in_c(dtype: torch.dtype) -> None:
    """Every integer type, at its limits: sums wrap, quotients truncate, unsigned ones know no sign."""
    info = torch.iinfo(dtype)
    some = [info.min, info.max, info.max - 1, 1, 2, 7, 100, info.max // 2 + 1]
    some += [-1, -7, -100, info.min + 1] if dtype.is_signed else [3, 5, 11, info.max // 3]
    pairs = [(a, b) for a in some for b in some if b != 0 and (a, b) != (info.min, -1)]
    pairs = pairs[: 1 << (len(pairs).bit_length() - 1)]
    x, y = (torch.tensor(side, dtype=dtype) for side in zip(*pairs, strict=True))
    for op in ("+", "-", "*", "//", "%", ">>", "<", "max"):
        assert computed(op, x, y, dtype).tolist() == [exact(op, a, b, dtype) for a, b in pairs], op


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_floats_round_after_every_operation(dtype: torch.dtype) -> None:
    """A sum of halves is computed in fp32 and rounded to even; a quotient of halves stays in fp32."""
    x, y = torch.randn(2, 256, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    for op, result in (("+", x + y), ("-", x - y), ("*", x * y), ("max", torch.maximum(x, y))):
        assert torch.equal(computed(op, x, y, dtype), result), op
    wide = dtype if dtype.itemsize > 2 else torch.float32
    assert torch.equal(computed("/", x, y, wide), x.to(wide) / y.to(wide))


def test_casts() -> None:
    """Truncation to integers, wrapping among them, rounding to even or to zero, saturation to fp8, and bits."""

    @jit
    def kernel(x, i, out, bits, TO: tl.constexpr, ROUNDING: tl.constexpr):
        at = tl.arange(0, 4)
        tl.store(out + at, tl.load(x + at).to(TO, fp_downcast_rounding=ROUNDING).to(tl.float32))
        tl.store(i + at, tl.load(x + at).to(tl.int32).to(tl.uint8).to(tl.int32))
        tl.store(bits + at, tl.load(x + at).to(tl.uint32, bitcast=True))

    x = torch.tensor([1.00390625, -2.7, 300.9, 1e6])
    i, out, bits = torch.zeros(4, dtype=torch.int32), torch.zeros(4), torch.zeros(4, dtype=torch.uint32)
    kernel[(1,)](x, i, out, bits, tl.bfloat16, None)
    assert torch.equal(out, x.bfloat16().float()) and i.tolist() == [1, 254, 44, 1000000 % 256]
    assert torch.equal(bits.view(torch.float32), x)
    kernel[(1,)](x, i, out, bits, tl.bfloat16, "rtz")
    assert torch.equal(out, (x.view(torch.int32) & -65536).view(torch.float32))
    kernel[(1,)](x, i, out, bits, tl.float8e4nv, None)
    assert out.tolist() == [1.0, -2.75, 288.0, 448.0]


def test_strides_and_offsets_of_any_view() -> None:
    """Transposed, stepping and offset tensors are reached through their strides, backwards too."""

    @jit
    def copy(x, out, sm, sn, M: tl.constexpr, N: tl.constexpr):
        m, n = tl.arange(0, M)[:, None], tl.arange(0, N)[None, :]
        tl.store(out + m * N + n, tl.load(x + m * sm + n * sn))

    base = torch.arange(256.0).reshape(16, 16)
    for view in (base.t(), base[3:, 1:], base[::2, ::3], base[5]):
        view = view.expand(4, -1)[:, :4] if view.dim() == 1 else view[:4, :4]
        out = torch.zeros(4, 4)
        copy[(1,)](view, out, *view.stride(), 4, 4)
        assert torch.equal(out, view)
    out = torch.zeros(4, 4)
    copy[(1,)](base[15, 15:], out, -16, -1, 4, 4)
    assert torch.equal(out, base.flip(0, 1)[:4, :4])


def test_a_pointer_is_chosen_at_run_time() -> None:
    """From one tensor or another, in each element and in each program."""

    @jit
    def kernel(x, y, out, N: tl.constexpr):
        n = tl.arange(0, N)
        source = tl.where(n % 2 == 0, x + n, y + n)
        if tl.program_id(0) == 1:
            source = y + n
        tl.store(out + tl.program_id(0) * N + n, tl.load(source))

    x, y, out = torch.arange(8.0), -torch.arange(8.0), torch.zeros(2, 8)
    kernel[(2,)](x, y, out, 8)
    assert torch.equal(out, torch.stack([torch.where(torch.arange(8) % 2 == 0, x, y), y]))


def test_leaving_a_tensor_is_an_error_with_a_line() -> None:
    """Unmasked reads and writes outside; masked-off ones are none."""

    @jit
    def kernel(x, out, n, M: tl.constexpr):
        at = tl.arange(0, 8)
        tl.store(out + at, tl.load(x + at, at < n if M else None, other=-1.0), at < n)

    x, out = torch.ones(5), torch.zeros(5)
    kernel[(1,)](x, out, 5, M=True)
    assert torch.equal(x, out)
    with pytest.raises(KernelFailed, match="outside of its tensors") as raised:
        kernel[(1,)](x, out, 5, M=False)
    assert f"{__file__}:{kernel.fn.__code__.co_firstlineno + 3}" in str(raised.value)


def walk(n: int) -> int:
    total, left = 0, n
    for i in range(n):
        total += i if i % 2 == 0 else -1
    while left > 0 and total < 1000:
        left -= 3
        total += 100
    if n == 5:
        return -1
    return total * 2 if total > 7 else total + 7


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_ways_part_and_meet_again(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """Loops of different lengths, branches, early returns and calls, in portions of every size, as in Python."""

    @jit
    def finish(x, n: tl.constexpr):
        if x > n:
            return x * 2
        return x + n

    @jit
    def kernel(n_ptr, out):
        pid = tl.program_id(0)
        n = tl.load(n_ptr + pid)
        total = 0
        for i in range(n):
            if i % 2 == 0:
                total += i
            else:
                total -= 1
        left = n
        while left > 0 and total < 1000:
            left -= 3
            total += 100
        if n == 5:
            tl.store(out + pid, -1)
            return
        tl.store(out + pid, finish(total, 7))

    monkeypatch.setattr(plan, "ELEMENTS_AT_ONCE", at_once)
    n = torch.tensor([0, 3, 5, 9, 2, 40, 5], dtype=torch.int32)
    out = torch.zeros(7, dtype=torch.int32)
    kernel[(7,)](n, out)
    assert out.tolist() == [walk(int(i)) for i in n]


def test_three_axes_of_programs() -> None:
    """Axis 0 runs fastest, and each program knows the grid."""

    @jit
    def kernel(out):
        x, y, z = tl.program_id(0), tl.program_id(1), tl.program_id(axis=2)
        tl.store(out + (z * tl.num_programs(1) + y) * tl.num_programs(0) + x, x + 10 * y + 100 * z)

    out = torch.zeros(2, 3, 4, dtype=torch.int32)
    kernel[(4, 3, 2)](out)
    z, y, x = torch.meshgrid(torch.arange(2), torch.arange(3), torch.arange(4), indexing="ij")
    assert torch.equal(out, (x + 10 * y + 100 * z).int())


def test_reductions_and_scans() -> None:
    """Known ones, and with functions of the kernel that combine; NaN has no say in a maximum."""

    @jit
    def larger(a, i, b, j):
        take = (a > b) | ((a == b) & (i < j))
        return tl.where(take, a, b), tl.where(take, i, j)

    @jit
    def affine(a, b, c, d):
        return a * c, b * c + d

    @jit
    def kernel(x, out, places, M: tl.constexpr, N: tl.constexpr):
        n = tl.arange(0, N)
        v = tl.load(x + tl.arange(0, M)[:, None] * N + n[None, :])
        m = tl.arange(0, M)
        tl.store(out + m, tl.sum(v, 1))
        tl.store(out + M + m, tl.max(v, axis=1))
        best, place = tl.reduce((v, tl.broadcast_to(n[None, :], M, N)), 1, larger)
        tl.store(places + m, place)
        tl.store(places + M + m, tl.argmin(v, 1))
        tl.store(out + 2 * M + m, best)
        tl.store(out + 3 * M + m[:, None] * N + n[None, :], tl.cumsum(v, 1, reverse=True))
        _, run = tl.associative_scan((tl.full((M, N), 0.5, tl.float32), v), 1, affine)
        tl.store(out + 3 * M + M * N + m[:, None] * N + n[None, :], run)

    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
    out, places = torch.zeros(12 + 64), torch.zeros(8, dtype=torch.int32)
    kernel[(1,)](x, out, places, 4, 8)
    assert torch.allclose(out[:4], x.sum(1)) and torch.equal(out[4:8], x.amax(1)) and torch.equal(out[8:12], x.amax(1))
    assert torch.equal(places.long(), torch.cat([x.argmax(1), x.argmin(1)]))
    assert torch.allclose(out[12:44].reshape(4, 8), x.flip(1).cumsum(1).flip(1), atol=1e-6)
    state, states = torch.zeros(4), []
    for column in range(8):
        state = x[:, column] if column == 0 else state * 0.5 + x[:, column]
        states.append(state)
    assert torch.allclose(out[44:].reshape(4, 8), torch.stack(states, 1), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int8], ids=str)
def test_dot(dtype: torch.dtype) -> None:
    """Products of blocks, accumulated in fp32 or int32, on top of an accumulator."""

    @jit
    def kernel(a, b, c, M: tl.constexpr, ACC: tl.constexpr):
        m = tl.arange(0, M)
        at = m[:, None] * M + m[None, :]
        acc = tl.full((M, M), 1, ACC)
        tl.store(c + at, tl.dot(tl.load(a + at), tl.trans(tl.load(b + at)), acc, out_dtype=ACC))

    a, b = (torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(3)) * 20).to(dtype)
    whole = dtype == torch.int8
    c = torch.zeros(32, 32, dtype=torch.int32 if whole else torch.float32)
    kernel[(1,)](a, b, c, 32, tl.int32 if whole else tl.float32)
    expected = a.double() @ b.double().t() + 1
    assert torch.equal(c.double(), expected) if whole else torch.allclose(c.double(), expected, rtol=1e-5, atol=1e-2)


def test_atomic_operations_happen_one_after_the_other() -> None:
    """A counter gives every program its own number; sums of colliding writes are whole; cas writes once."""

    @jit
    def kernel(counter, seen, sums, first, top):
        pid = tl.program_id(0)
        place = tl.atomic_add(counter, 1)
        tl.store(seen + place, pid)
        tl.atomic_add(sums + pid % 3, 1.5)
        if pid > 3:
            tl.atomic_cas(first, -1, pid)
        tl.atomic_max(top, (pid * 7) % 10)

    counter, seen = torch.zeros(1, dtype=torch.int32), torch.zeros(8, dtype=torch.int32)
    sums, first = torch.zeros(3), torch.full((1,), -1, dtype=torch.int32)
    top = torch.zeros(1, dtype=torch.int32)
    kernel[(8,)](counter, seen, sums, first, top)
    assert counter.item() == 8 and seen.tolist() == list(range(8)) and sums.tolist() == [4.5, 4.5, 3.0]
    assert first.item() == 4 and top.item() == 9


def test_a_lock_is_no_deadlock() -> None:
    """Programs that wait for one another run one at a time."""

    @jit
    def kernel(lock, total):
        while tl.atomic_cas(lock, 0, 1) == 1:
            pass
        tl.store(total, tl.load(total) + tl.program_id(0))
        tl.atomic_xchg(lock, 0)

    lock, total = torch.zeros(1, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    kernel[(10,)](lock, total)
    assert total.item() == 45


def test_block_pointers_and_descriptors() -> None:
    """Windows move, are checked where asked, and padding is what lies outside."""

    @jit
    def kernel(x, out, M, N, B: tl.constexpr):
        window = tl.make_block_ptr(x, (M, N), (N, 1), (0, 0), (B, B), (1, 0))
        total = tl.zeros((B, B), tl.float32)
        for _ in range(0, N, B):
            total += tl.load(window, boundary_check=(0, 1), padding_option="zero")
            window = tl.advance(window, (0, B))
        desc = tl.make_tensor_descriptor(out, [M, B], [B, 1], [B, B])
        desc.store([0, 0], total)

    x = torch.randn(6, 10, generator=torch.Generator().manual_seed(4))
    out = torch.zeros(6, 4)
    kernel[(1,)](x, out, 6, 10, B=4)
    padded = torch.nn.functional.pad(x, (0, 2))[:4].reshape(4, 3, 4).sum(1)
    assert torch.allclose(out[:4], padded) and not out[4:].any()


def test_shapes() -> None:
    """join, split, interleave, cat, gather, flip, sort, topk, histogram, permute."""

    @jit
    def kernel(x, out, N: tl.constexpr):
        n = tl.arange(0, N)
        v = tl.load(x + n)
        a, b = tl.split(tl.reshape(v, (N // 2, 2)))
        tl.store(out + n, tl.interleave(b, a))
        tl.store(out + N + n, tl.cat(a, b, can_reorder=True))
        tl.store(out + 2 * N + n, tl.gather(v, N - 1 - n, 0))
        tl.store(out + 3 * N + n, tl.flip(v))
        tl.store(out + 4 * N + n, tl.sort(v, descending=True))
        tl.store(out + 5 * N + tl.arange(0, 2), tl.topk(v, 2))
        tl.store(out + 6 * N + n, tl.histogram(tl.abs(v).to(tl.int32), N))
        tl.store(out + 7 * N + n, tl.permute(tl.reshape(v, (2, N // 2)), (1, 0)).ravel())

    x = torch.randn(8, generator=torch.Generator().manual_seed(5))
    out = torch.zeros(8, 8)
    kernel[(1,)](x, out, 8)
    pairs = x.reshape(4, 2)
    assert torch.equal(out[0], pairs.flip(1).reshape(-1)) and torch.equal(out[1], pairs.t().reshape(-1))
    assert torch.equal(out[2], x.flip(0)) and torch.equal(out[3], x.flip(0))
    assert torch.equal(out[4], x.sort(descending=True)[0]) and torch.equal(out[5][:2], x.topk(2)[0])
    assert torch.equal(out[6], torch.bincount(x.abs().long(), minlength=8).float())
    assert torch.equal(out[7], x.reshape(2, 4).t().reshape(-1))


def test_mathematics() -> None:
    """The language's functions and the device library's, beside torch's in fp64."""

    @jit
    def kernel(x, out, N: tl.constexpr):
        n = tl.arange(0, N)
        v = tl.load(x + n)
        tl.store(out + n, tl.sigmoid(v))
        tl.store(out + N + n, libdevice.tanh(v))
        tl.store(out + 2 * N + n, tl.softmax(v))
        tl.store(out + 3 * N + n, tl.math.erf(v) + tl.exp2(v) + tl.rsqrt(v * v + 1.0))
        tl.store(out + 4 * N + n, libdevice.pow(tl.abs(v), 2.5) + libdevice.log1p(v * v))
        tl.store(out + 5 * N + n, tl.fma(v, v, 1.0) + tl.clamp(v, -0.5, 0.5))

    x = torch.randn(16, generator=torch.Generator().manual_seed(6))
    out = torch.zeros(6, 16)
    kernel[(1,)](x, out, 16)
    d = x.double()
    expected = [
        torch.sigmoid(d),
        torch.tanh(d),
        torch.softmax(d, 0),
        torch.erf(d) + torch.exp2(d) + torch.rsqrt(d * d + 1),
        d.abs().pow(2.5) + torch.log1p(d * d),
        d * d + 1 + d.clamp(-0.5, 0.5),
    ]
    assert torch.allclose(out.double(), torch.stack(expected), rtol=1e-5, atol=1e-6)


def test_known_instructions() -> None:
    """Single PTX instructions that are operations of a program; other assembly is refused with what is known."""

    @jit
    def kernel(x, ASM: tl.constexpr):
        n = tl.arange(0, 4)
        v = tl.load(x + n)
        v = tl.inline_asm_elementwise("rcp.rn.f32 $0, $1;", "=f,f", [v], dtype=tl.float32, is_pure=True, pack=1)
        tl.store(x + n, tl.inline_asm_elementwise(ASM, "=f,f,f", [v, v + 1], dtype=tl.float32, is_pure=True, pack=1))

    x = torch.tensor([1.0, 3.0, 1e-30, -7.0])
    expected = (1 / x) / (1 / x + 1)
    kernel[(1,)](x, "div.rn.f32 $0, $1, $2;")
    assert torch.equal(x, expected)
    with pytest.raises(KernelNotSupported, match="assembly only"):
        kernel[(1,)](x, "prmt.b32 $0, $1, $2;")


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Salmon et al., 2011, ten rounds of Philox 4x32."""
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def test_every_elementwise_function_is_there() -> None:
    """What a program may hold, torch computes."""
    for fn, arity in MAPS.items():
        whole = fn in ("and", "or", "xor", "shl", "shr", "not", "idiv", "umulhi")
        scalar = types.int32 if whole else types.float32
        operands = [torch.ones(4, dtype=torch.int32 if whole else torch.float32)] * arity
        if fn == "where":
            operands = [torch.ones(4, dtype=torch.bool), *operands[1:]]
        assert apply(fn, operands, [scalar] * arity).shape == (4,), fn


def test_random_numbers_are_philox() -> None:
    """Known answers: the published vector of zeros, and any seed against the algorithm in Python."""

    @jit
    def kernel(out, floats, seed, N: tl.constexpr):
        n = tl.arange(0, N)
        tl.store(out + n, tl.randint(seed, n))
        tl.store(floats + n, tl.rand(seed, n))
        tl.store(floats + N + n, tl.randn(seed, n))

    out, floats = torch.zeros(64, dtype=torch.uint32), torch.zeros(128)
    kernel[(1,)](out, floats, 0, 64)
    assert philox([0] * 4, [0] * 2)[0] == 0x6627E8D5 == out[0].item()
    seed = 0x123456789ABC
    kernel[(1,)](out, floats, seed, 64)
    assert out.tolist() == [philox([n, 0, 0, 0], [seed & 0xFFFFFFFF, seed >> 32])[0] for n in range(64)]
    assert floats[:64].min() >= 0 and floats[:64].max() < 1 and abs(float(floats[64:].mean())) < 0.4


def test_device_assert_names_its_line() -> None:
    """Programs that are not on the way do not count."""

    @jit
    def kernel(x, limit):
        v = tl.load(x + tl.program_id(0))
        if tl.program_id(0) < 2:
            tl.device_assert(v < limit, "too large")

    kernel[(3,)](torch.tensor([1, 2, 30]), 10)
    with pytest.raises(KernelFailed, match="too large"):
        kernel[(3,)](torch.tensor([1, 20, 30]), 10)


def test_device_print(capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each program."""

    @jit
    def kernel(x):
        tl.device_print("value", tl.load(x + tl.program_id(0)))

    kernel[(2,)](torch.tensor([5, 6]))
    assert capsys.readouterr().out.splitlines() == ["pid (0, 0, 0) value 5", "pid (1, 0, 0) value 6"]


def test_a_kernel_writes_into_what_autograd_has_saved() -> None:
    """As on a GPU: the write is none of autograd's in-place operations, and needs no permission from it."""

    @jit
    def double(x, N: tl.constexpr):
        n = tl.arange(0, N)
        tl.store(x + n, tl.load(x + n) * 2)

    x = torch.ones(4, requires_grad=True)
    y = x.exp()
    double[(1,)](y, 4)
    y.sum().backward()
    grad: Any = x.grad
    assert torch.equal(grad, y.detach())


def test_mixed_precision_of_a_script_does_not_reach_into_a_kernel() -> None:
    """A product that is launched under autocast is added up in fp32 all the same."""

    @jit
    def product(x, y, out, N: tl.constexpr):
        at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
        tl.store(out + at, tl.dot(tl.load(x + at), tl.load(y + at)))

    x, y = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0)).unbind()
    out = torch.zeros(16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        product[(1,)](x, y, out, N=16)
    torch.testing.assert_close(out, x @ y)


class Waits(TorchDispatchMode):
    """Notes the operators for which the host waits for the device, and those that pick elements by a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.met: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        picks = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        masks = any(x is not None and x.dtype == torch.bool for x in picks)
        if masks or name in ("_local_scalar_dense", "nonzero", "unique_dim", "_unique2", "masked_select", "equal"):
            self.met.append(name)
        return func(*args, **(kwargs or {}))


def test_memory_does_not_wait_for_the_device() -> None:
    """Neither reads nor writes nor sums ask for a number; whether a program has left its tensors is read at the end."""

    @jit
    def kernel(x, sums, out, n, N: tl.constexpr):
        at = tl.program_id(0) * N + tl.arange(0, N)
        inside = at < n
        value = tl.load(x + at, mask=inside) + tl.load(x + at // 2)
        tl.atomic_add(sums + at % 4, value, mask=inside)
        tl.store(out + at, value, mask=inside)

    x, sums, out = torch.randn(64), torch.zeros(4), torch.zeros(64)
    with Waits() as waits:
        kernel[(4,)](x, sums, out, 50, 16)
    assert not waits.met
    expected = torch.where(torch.arange(64) < 50, x + x[torch.arange(64) // 2], torch.zeros(64))
    assert torch.equal(out, expected) and torch.allclose(sums, expected.reshape(16, 4).sum(0))


def test_which_loops_wait_for_other_programs() -> None:
    """Those whose condition depends on what a program reads in them where programs write."""

    @jit
    def counts(x, out, n, N: tl.constexpr):
        total, turn = 0, 0
        while turn < n:
            total += tl.load(out + turn)
            turn += 1
        tl.store(out + N, total)

    @jit
    def follows(x, out, n, N: tl.constexpr):
        at = n
        while at >= 0:
            at = tl.load(x + at)
        tl.store(out + N, at)

    @jit
    def watches(x, out, n, N: tl.constexpr):
        tries, seen = 0, 0
        while (seen == 0) & (tries < n):
            seen = tl.load(out + N)
            tries += 1
        tl.store(out + N, seen + tries)

    x, out = torch.full((8,), -1, dtype=torch.int32), torch.zeros(8, dtype=torch.int32)
    waiting = [plan.plan_of(kernel[(2,)](x, out, 3, 4)).waits for kernel in (counts, follows, watches)]
    assert waiting == [False, False, True]
    assert out[4] == 3  # the first program has seen -1 at once and written 0, the second one has seen 0 three times
