"""Matrix products in half precision, with torch's kernels for it and in float32: the same within one rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from patcher.simulator import Device
from patcher.simulator.meter import Meter
from patcher.simulator.usage import Counts

HALF = [torch.bfloat16, torch.float16]


@pytest.fixture(params=["native", "float32"])
def computed(request: pytest.FixtureRequest, device: Device) -> Iterator[str]:
    device.set_products(request.param)
    yield request.param
    device.set_products("host")


def grads(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    """The gradients of all inputs but the last, which is that of the result."""
    leaves = [x.detach().requires_grad_() for x in inputs[:-1]]
    return torch.autograd.grad(function(*leaves), leaves, inputs[-1])


Shapes = tuple[tuple[int, ...], ...]
K = 24
"""Summands of the longest sum below, but for those that are named after their lengths."""
PRODUCTS: dict[str, tuple[Callable[..., Tensor | tuple[Tensor, ...]], Shapes]] = {
    "mm": (torch.mm, ((5, K), (K, 7))),
    "transposed": (lambda a, b: a.t() @ b.t(), ((K, 5), (7, K))),
    "strided": (lambda a, b: a[::2, ::3] @ b[1:, :7], ((9, 3 * K), (K + 1, 9))),
    "addmm": (lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=2), ((7,), (5, K), (K, 7))),
    "addmm_": (lambda c, a, b: c.clone()[1:].addmm_(a, b), ((6, 7), (5, K), (K, 7))),
    "mv": (torch.mv, ((5, K), (K,))),
    "addmv": (lambda c, a, b: torch.addmv(c, a, b, beta=2), ((5,), (5, K), (K,))),
    "addmv_": (lambda c, a, b: c.clone().addmv_(a.t(), b), ((5,), (K, 5), (K,))),
    "dot": (torch.dot, ((K,), (K,))),
    "vdot": (torch.vdot, ((K,), (K,))),
    "bmm": (torch.bmm, ((3, 5, K), (3, K, 7))),
    "expanded": (lambda a, b: a.expand(3, 5, K) @ b.mT, ((5, K), (3, 7, K))),
    "baddbmm": (lambda c, a, b: torch.baddbmm(c, a, b, beta=0.5, alpha=2), ((5, 7), (3, 5, K), (3, K, 7))),
    "baddbmm_": (lambda c, a, b: c.clone().baddbmm_(a, b), ((3, 5, 7), (3, 5, K), (3, K, 7))),
    "einsum": (lambda a, b: torch.einsum("bhk,bnk->bhn", a, b), ((3, 5, K), (3, 7, K))),
    "linear": (F.linear, ((2, 5, K), (7, K), (7,))),
    "no rows": (F.linear, ((0, K), (7, K), (7,))),
    "no sum": (torch.mm, ((5, 0), (0, 7))),
    "no sum, added": (torch.addmm, ((7,), (5, 0), (0, 7))),
    "linear, gradients": (lambda *t: grads(F.linear, *t), ((2, 5, K), (7, K), (7,), (2, 5, 7))),
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, stride=2, padding=1), ((2, 8, 9), (6, 8, 3), (6,))),
    "conv2d": (lambda x, w: F.conv2d(x, w, groups=2), ((2, 4, 6, 5), (6, 2, 3, 3))),
}
SEVERAL_ROUNDINGS = {
    "addbmm": (torch.addbmm, ((5, 7), (3, 5, 8), (3, 8, 7))),
    "addbmm_": (lambda c, a, b: c.clone().addbmm_(a, b), ((5, 7), (3, 5, 8), (3, 8, 7))),
    "conv_transpose1d": (lambda x, w, b: F.conv_transpose1d(x, w, b, stride=2), ((2, 4, 5), (4, 3, 3), (3,))),
    "conv1d, gradients": (lambda *t: grads(F.conv1d, *t), ((1, 8, 9), (2, 8, 3), (2,), (1, 2, 7))),
    "batch, gradients": (lambda *t: grads(F.conv1d, *t), ((3, 4, 8), (6, 4, 3), (6,), (3, 6, 6))),
}
"""Products of 3 parts: torch's kernels for half precision may round each part, and each sum of parts."""


def inputs(shapes: Shapes, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def outputs(result: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def check(name: str, dtype: torch.dtype, *, roundings: int) -> None:
    """The result differs from the exact one by so many roundings to `dtype`, and float32's in a sum of at most 2 K.

    A rounding is eps / 2 of the value; a rounded part is at most as large as the sum of absolute values. float16's
    subnormal numbers are rounded by at most half of the smallest.
    """
    function, shapes = {**PRODUCTS, **SEVERAL_ROUNDINGS}[name]
    given = inputs(shapes, dtype)
    results = outputs(function(*(x.to("mps") for x in given)))
    exact = outputs(function(*(x.double() for x in given)))
    absolute = outputs(function(*(x.double().abs() for x in given)))
    eps, eps32 = torch.finfo(dtype).eps, torch.finfo(torch.float32).eps
    for ours, theirs, size in zip(results, exact, absolute, strict=True):
        assert ours.dtype == dtype and ours.device.type == "mps" and ours.shape == theirs.shape
        accumulated = 2 * K * eps32 * size
        bound = (theirs.abs() + accumulated) * eps / 2 + accumulated + (roundings - 1) * size * eps / 2 + 2**-25
        assert ((ours.cpu().double() - theirs).abs() <= bound).all()


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_rounded_once(name: str, dtype: torch.dtype, computed: str) -> None:
    """Whatever computes it: the exact value, but for one rounding and the sum in float32."""
    check(name, dtype, roundings=1)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", SEVERAL_ROUNDINGS)
def test_in_float32_the_whole_is_rounded_once(name: str, dtype: torch.dtype, computed: str) -> None:
    """Where torch's kernels round the parts."""
    check(name, dtype, roundings=1 if computed == "float32" else 6)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("heads", [(2, 2, 64), (4, 2, 64), (2, 2, 20)], ids=str)
def test_attention_is_that_of_fp64(heads: tuple[int, int, int], dtype: torch.dtype, computed: str) -> None:
    """Fused, grouped, and in the general form; the fused kernel of a CPU also rounds the weights of the values."""
    query, key, width = heads
    shapes = ((1, query, 16, width), (1, key, 16, width), (1, key, 16, width))
    q, k, v = inputs(shapes, dtype)
    mask = torch.ones(16, 16, dtype=torch.bool).tril()

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.device), enable_gqa=True)

    ours = attend(*(x.to("mps") for x in (q, k, v)))
    exact = attend(q.double(), k.double(), v.double())
    size = attend(q.double(), k.double(), v.double().abs())
    # Scores are sums of `width` products of up to `largest`; their error in float32 is the weights' relative error.
    largest = (q.double().abs() @ k.double().abs().repeat_interleave(query // key, 1).mT).max() / width**0.5
    in_float32 = (2 * width * largest + 32) * torch.finfo(torch.float32).eps
    eps = torch.finfo(dtype).eps
    bound = exact.abs() * eps / 2 + size * (in_float32 + (0 if computed == "float32" else eps)) + 2**-25
    assert ours.dtype == dtype
    assert ((ours.cpu().double() - exact).abs() <= bound).all()


def test_out_and_beta(computed: str) -> None:
    """What is given as `out` is returned, resized, and written in its own layout; with beta 0 nothing is read."""
    a, b = (x.to("mps") for x in inputs(((5, K), (K, 7)), torch.bfloat16))
    expected = a @ b
    given = torch.empty(7, 5, dtype=torch.bfloat16, device="mps").t()
    assert torch.mm(a, b, out=given) is given and given.stride() == (1, 5) and torch.equal(given, expected)
    empty = torch.empty(0, dtype=torch.bfloat16, device="mps")
    assert torch.mm(a, b, out=empty) is empty and torch.equal(empty, expected)
    unknown = torch.full((5, 7), torch.nan, dtype=torch.bfloat16, device="mps")
    assert torch.equal(torch.addmm(unknown, a, b, beta=0), expected)
    assert unknown.addmm_(a, b, beta=0) is unknown and torch.equal(unknown, expected)


@pytest.mark.parametrize(
    "product",
    [
        lambda x: torch.mm(x, x.float()),
        lambda x: torch.mm(x, x.to(torch.float16)),
        lambda x: F.linear(x, x.to(torch.float16)),
        lambda x: torch.mm(x, x, out=x.float()),
        lambda x: F.conv1d(x, x[..., None].to(torch.float16)),
    ],
)
def test_two_dtypes_are_refused(product: Callable[[Tensor], Tensor], computed: str) -> None:
    """As torch refuses them: a copy in float32 hides nothing."""
    with pytest.raises(RuntimeError, match="type"):
        product(torch.ones(4, 4, dtype=torch.bfloat16, device="mps"))


def copies(function: Callable[[], object]) -> int:
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        function()
    return sum(event.count for event in profiler.key_averages() if event.key == "aten::_to_copy")


def test_the_host_decides_and_so_does_a_test(device: Device) -> None:
    """`products` says what computes, and that computes; with oneDNN off there are no native kernels on any host."""
    x = torch.ones(4, 4, dtype=torch.bfloat16, device="mps")
    dtypes = ("bfloat16", "float16")
    supported = (torch.ops.mkldnn._is_mkldnn_bf16_supported(), torch.ops.mkldnn._is_mkldnn_fp16_supported())
    names = ["native" if yes else "float32" for yes in supported]
    assert device.products == dict(zip(dtypes, names, strict=True))
    with torch.backends.mkldnn.flags(enabled=False):
        assert device.products == dict.fromkeys(dtypes, "float32")
        assert copies(lambda: x @ x.t()) == 3  # the operands, and the result back
    try:
        device.set_products("native")
        assert device.products == dict.fromkeys(dtypes, "native")
        assert copies(lambda: x @ x.t()) == 0
        with pytest.raises(ValueError, match="expected host, native or float32, got fast"):
            device.set_products("fast")
    finally:
        device.set_products("host")


def test_the_account_is_the_same(device: Device) -> None:
    """Neither the memory that a Mac would hold nor its work show what the host computes with."""
    shapes = ((64, 64), (64, 64), (1, 2, 16, 64))
    a, b, q = (x.to("mps") for x in inputs(shapes, torch.bfloat16))
    w = torch.ones(8, 64, 3, dtype=torch.bfloat16, device="mps", requires_grad=True)

    def work() -> tuple[int, Counts]:
        device.reset_peak()
        before = device.memory().current
        with Meter() as meter:
            F.scaled_dot_product_attention(q, q, q)
            F.conv1d(a[None] @ b, w).sum().backward()
        w.grad = None
        return device.memory().peak - before, meter.usage().counts

    try:
        device.set_products("native")
        native = work()
        device.set_products("float32")
        assert work() == native and native[0] > 0
    finally:
        device.set_products("host")
