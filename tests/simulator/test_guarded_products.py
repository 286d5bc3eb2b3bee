"""The guards of matrix products and linear layers change nothing but what Metal gets wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from patcher.changes.torch import linear as torch_linear
from patcher.changes.torch import matmul as torch_matmul
from patcher.engine.ledger import LEDGER, original
from patcher.engine.model import State
from patcher.replacements.torch import matmul as kernels
from patcher.simulator import Device
from patcher.simulator.faults import inject
from patcher.simulator.meter import Meter

LONG = 32768


@contextmanager
def guards() -> Iterator[None]:
    """The kernels in place, as for a chip that is not known."""
    try:
        for change in (*torch_matmul.CHANGES, *torch_linear.CHANGES):
            assert LEDGER.apply(change, torch).state is State.APPLIED
        yield
    finally:
        LEDGER.undo()


@pytest.fixture
def guarded(device: Device) -> Iterator[None]:
    with guards():
        yield


def zeros(*shape: int, dtype: torch.dtype = torch.float32, device: str = "mps") -> Tensor:
    return torch.zeros(*shape, dtype=dtype, device=device)


def half(*shape: int) -> Tensor:
    return zeros(*shape, dtype=torch.float16)


REFUSED: dict[str, Callable[[], object]] = {
    "mm: other terms": lambda: torch.mm(zeros(20, 40000), zeros(50000, 20)),
    "mm: fewer terms": lambda: torch.mm(zeros(20, 50000), zeros(40000, 20)),
    "mm: a vector": lambda: torch.mm(zeros(40000), zeros(40000, 20)),
    "mm: by a vector": lambda: torch.mm(zeros(20, 40000), zeros(40000)),
    "mm: a batch": lambda: torch.mm(zeros(1, 20, 40000), zeros(1, 40000, 20)),
    "mm: other dtype": lambda: torch.mm(zeros(20, LONG), half(LONG, 20)),
    "mm: out of integers": lambda: torch.mm(zeros(20, LONG), zeros(LONG, 20), out=zeros(20, 20, dtype=torch.int32)),
    "addmm: other terms": lambda: torch.addmm(zeros(20), zeros(20, 40000), zeros(50000, 20)),
    "addmm: three dimensions": lambda: torch.addmm(zeros(1, 20, 20), zeros(20, LONG), zeros(LONG, 20)),
    "addmm: does not expand": lambda: torch.addmm(zeros(3), zeros(20, LONG), zeros(LONG, 20)),
    "addmm: other dtype": lambda: torch.addmm(half(20), zeros(20, LONG), zeros(LONG, 20)),
    "addmm: a vector": lambda: torch.addmm(zeros(20), zeros(LONG), zeros(LONG, 20)),
    "addmm_: a row": lambda: zeros(20).addmm_(zeros(20, LONG), zeros(LONG, 20)),
    "bmm: other terms": lambda: torch.bmm(zeros(1, 20, 40000), zeros(1, 50000, 20)),
    "bmm: other batch": lambda: torch.bmm(zeros(1, 20, LONG), zeros(2, LONG, 20)),
    "bmm: matrices": lambda: torch.bmm(zeros(20, LONG), zeros(LONG, 20)),
    "addbmm: other batch": lambda: torch.addbmm(zeros(20), zeros(1, 20, LONG), zeros(2, LONG, 20)),
    "baddbmm: does not expand": lambda: torch.baddbmm(zeros(3), zeros(1, 2, 4), zeros(1, 4, 2), beta=0),
    "baddbmm: other dtype": lambda: torch.baddbmm(half(2), zeros(1, 2, 4), zeros(1, 4, 2), beta=0),
    "baddbmm_: a row": lambda: zeros(2).baddbmm_(zeros(1, 2, 4), zeros(1, 4, 2), beta=0),
    "linear: other terms": lambda: F.linear(zeros(20, 40000), zeros(20, 50000)),
    "linear: bias of other dtype": lambda: F.linear(half(1, 4), half(3, 4), zeros(3)),
    "linear: bias does not expand": lambda: F.linear(zeros(1, 4), zeros(3, 4), zeros(2)),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED.keys())
def test_what_torch_refuses_is_refused_by_torch(call: Callable[[], object], device: Device) -> None:
    """The same error, word for word, as without the guards."""
    with pytest.raises((RuntimeError, IndexError)) as bare:
        call()
    with guards(), pytest.raises(bare.type) as found:
        call()
    assert str(found.value).splitlines()[0] == str(bare.value).splitlines()[0]


@pytest.mark.usefixtures("guarded")
def test_fp16_is_scaled_before_it_is_rounded() -> None:
    """Scores of 120000 times 0.001, and 160000 times 0.1: fp16 ends at 65504, and the scales are rounded to it."""
    q = torch.full((1, 4, 3), 200.0, dtype=torch.float16, device="mps")
    scores = [
        torch.baddbmm(half(1, 4, 4), q, q.mT, beta=0, alpha=0.001),
        torch.baddbmm(half(1), q, q.mT, beta=0, alpha=0.001, out=half(1, 4, 4)),
        half(1, 4, 4).baddbmm_(q, q.mT, beta=0, alpha=0.001),
    ]
    a, b = (torch.full(shape, 2.0, dtype=torch.float16, device="mps") for shape in ((16, 40000), (40000, 16)))
    sums = [
        torch.addmm(half(16), a, b, alpha=0.1),
        half(16, 16).addmm_(a, b, alpha=0.1),
        torch.addmm(half(16), a, b, alpha=0.1, out=half(16, 16)),
        torch.addbmm(half(16), a[None], b[None], alpha=0.1),
        torch.baddbmm(half(16), a[None], b[None], alpha=0.1)[0],
    ]
    for score in scores:
        assert torch.allclose(score.cpu().float(), torch.full((1, 4, 4), 120.0), rtol=2**-10)
    for total in sums:
        assert torch.allclose(total.cpu().float(), torch.full((16, 16), 16000.0), rtol=2**-9)


@pytest.mark.usefixtures("guarded")
def test_fp16_is_added_before_it_is_rounded() -> None:
    """80000 - 78976 is 1024, though fp16 ends at 65504."""
    a, b = (torch.ones(shape, dtype=torch.float16, device="mps") for shape in ((16, 40000), (40000, 16)))
    added = torch.full((16,), -39488.0, dtype=torch.float16, device="mps")
    assert torch.equal(torch.addmm(added, a, b, alpha=2, beta=2).cpu(), torch.full((16, 16), 1024.0).half())


@pytest.mark.usefixtures("guarded")
def test_autocast_leaves_alone_what_has_an_out_or_is_in_place() -> None:
    """The results are those of fp32, to 1e-5; bf16 would be off by 2e-3."""
    a, b = torch.rand(16, LONG), torch.rand(LONG, 16)
    x, y, q = a.to("mps"), b.to("mps"), torch.full((1, 1, 1), 2.002, device="mps")
    with torch.autocast("mps", dtype=torch.bfloat16):
        found = [
            torch.mm(x, y, out=zeros(16, 16)),
            zeros(16, 16).addmm_(x, y),
            torch.addmm(zeros(16), x, y, out=zeros(16, 16)),
            zeros(16, 16).addbmm_(x[None], y[None]),
            torch.bmm(x[None], y[None], out=zeros(1, 16, 16))[0],
            zeros(1, 16, 16).baddbmm_(x[None], y[None])[0],
        ]
        small = [zeros(1, 1, 1).baddbmm_(q, q, beta=0), torch.baddbmm(zeros(1), q, q, beta=0, out=zeros(1, 1, 1))]
        assert torch.mm(x, y).dtype is torch.bfloat16
    exact = a.double() @ b.double()
    for result in found:
        assert torch.allclose(result.cpu().double(), exact, rtol=1e-5)
    for result in small:
        assert result.item() == pytest.approx(2.002**2, rel=1e-6)


STRIDED: dict[str, tuple[Callable[[], Tensor], str]] = {
    "transposed": (lambda: torch.randn(LONG, 16).t(), "matmul-long-sum"),
    "sliced": (lambda: torch.randn(2, 8, LONG + 1)[:, :, 1:], "matmul-long-sum"),
    "permuted": (lambda: torch.randn(8, 2, LONG).transpose(0, 1), "matmul-long-sum"),
    "last token": (lambda: torch.randn(3, 5, 8)[:, -1:, :], "linear-dropped-bias"),
    "one strided row": (lambda: torch.randn(1, 16)[:, ::2], "linear-dropped-bias"),
    "one row": (lambda: torch.randn(1, 8), "linear-dropped-bias"),
    "bf16 of which a part": (lambda: torch.randn(3, 5, 9).bfloat16()[:, :, 1:], "linear-transposed-bf16"),
}


@pytest.mark.parametrize("bias_dims", [0, 1, 2])
@pytest.mark.parametrize(("make", "fault"), STRIDED.values(), ids=STRIDED.keys())
@pytest.mark.usefixtures("guarded")
def test_a_linear_layer_is_right_for_strided_rows(make: Callable[[], Tensor], fault: str, bias_dims: int) -> None:
    """With the bug switched on: that of fp64, to the rounding of the dtype."""
    x = make()
    w = torch.randn(x.size(-1), 16).to(x.dtype).t()
    bias = (None, torch.randn(16).to(x.dtype), torch.randn(1, 16).to(x.dtype))[bias_dims]
    whole = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="mps").copy_(x)
    weight = w.t().to("mps").t()
    assert not weight.is_contiguous() and whole.stride() == x.stride()
    with inject(fault):
        found = F.linear(whole, weight, None if bias is None else bias.to("mps")).cpu()
    exact = x.double() @ w.double().t() + (0 if bias is None else bias.double())
    assert found.dtype is x.dtype and found.shape == exact.shape
    eps = 1e-5 if x.dtype is torch.float32 else 2 * torch.finfo(x.dtype).eps
    assert (found.double() - exact).abs().max() <= eps * exact.abs().max()


@pytest.mark.usefixtures("guarded")
def test_a_transposed_bf16_weight_is_not_copied() -> None:
    """The input is flattened, so that the weight can stay as it lies."""
    x = torch.ones(2, 3, 64, dtype=torch.bfloat16, device="mps")
    weight = torch.ones(64, 256, dtype=torch.bfloat16, device="mps").t()
    with Meter() as meter:
        F.linear(x, weight)
        F.linear(x[0], weight)
    assert not {"aten::clone", "aten::copy_", "aten::contiguous"} & set(meter.usage().by_op)


@pytest.mark.usefixtures("guarded")
def test_a_matrix_that_is_large_but_not_long_is_computed_in_its_own_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to add up, so nothing is widened to fp32."""
    monkeypatch.setattr(kernels, "MOST_ELEMENTS", 8)
    a = torch.ones(1, 4, 4, dtype=torch.float16, device="mps")
    with mock.patch.object(kernels, "split_sum", side_effect=AssertionError):
        assert torch.bmm(a, a).tolist() == [[[4.0] * 4] * 4]
        assert torch.baddbmm(a, a, a, beta=2).tolist() == [[[6.0] * 4] * 4]


def test_a_kernel_finds_its_original_until_it_is_gone(device: Device) -> None:
    """Another thread may be within a product while everything is undone."""
    seen = []
    with guards():
        LEDGER._cleanups.insert(0, lambda: seen.append(original("aten::mm on MPS")))
    assert len(seen) == 1
    with pytest.raises(KeyError):
        original("aten::mm on MPS")
