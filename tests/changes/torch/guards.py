"""Runs plain torch under a fault, with every change in place and with one left out, and writes what was right.

Run by the tests, in a process of its own: ``python -m tests.changes.torch.guards FILE``.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

from patcher import patch_for_mac
from patcher.changes import catalogue
from patcher.engine import session

LONG = 32768
"""Terms of a sum: the vocabulary of Mistral, and one of the two lengths that torch 2.14 still adds up wrongly."""


logging.getLogger("patcher").setLevel(logging.ERROR)


@contextmanager
def patched(without: str | None) -> Iterator[None]:
    """Everything in place for an M1 with torch 2.13, which every guard is for, except one change."""
    kept = tuple(change for change in catalogue() if change.key != without)
    assert (len(kept) < len(catalogue())) is (without is not None)
    with mock.patch.object(session, "catalogue", lambda: kept), patch_for_mac(simulate="M1 8GB, torch 2.13"):
        yield


with patched(None):
    import torch
    import torch.nn.functional as F
    from torch import Tensor

    from patcher.replacements.torch import matmul as torch_matmul
    from patcher.simulator.faults import inject


def made(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(found: Tensor, exact: Tensor, eps: float = 1e-5) -> bool:
    """fp32 sums of 32768 terms in another order differ by some sqrt(32768) * 1e-7 of a term, 1e-7 of the largest."""
    return bool((found.cpu().double() - exact).abs().max() <= eps * exact.abs().max())


def product(run: Callable[..., Tensor], dtype: torch.dtype = torch.float32, eps: float = 1e-5) -> bool:
    a, b = made(16, LONG).to(dtype), made(LONG, 17, seed=1).to(dtype)
    return close(run(a.to("mps"), b.to("mps")).view(16, 17), a.double() @ b.double(), eps)


def added(run: Callable[..., Tensor]) -> bool:
    """``2 * ones + 3 * a @ b``"""
    a, b = made(16, LONG), made(LONG, 17, seed=1)
    ones = torch.ones(16, 17, device="mps")
    return close(run(ones, a.to("mps"), b.to("mps")).view(16, 17), 2 + 3 * (a.double() @ b.double()))


def batched(run: Callable[..., Tensor]) -> bool:
    """The batched product of two pairs, some of whose elements lie beyond the size."""
    a, b = made(6, 3, 5), made(6, 3, 5, seed=1).transpose(1, 2)
    with mock.patch.object(torch_matmul, "MOST_ELEMENTS", 40):
        return close(run(a.to("mps"), b.to("mps")), a.double() @ b.double())


def ignored(run: Callable[..., Tensor]) -> bool:
    nothing, one = torch.full((1, 2, 2), float("nan"), device="mps"), torch.ones(1, 2, 2, device="mps")
    return bool((run(nothing, one, one) == 2).all())


def linear_gradients(rows: tuple[int, ...], inputs: int, outputs: int) -> bool:
    x, w, g = made(*rows, inputs), made(outputs, inputs, seed=1), made(*rows, outputs, seed=2)
    leaves = [t.to("mps").requires_grad_() for t in (x, w)]
    bias = torch.zeros(outputs, device="mps", requires_grad=True)
    F.linear(*leaves, bias).backward(g.to("mps"))
    flat = g.flatten(0, -2).double()
    exact = g.double() @ w.double(), flat.T @ x.flatten(0, -2).double(), flat.sum(0)
    grads = [leaf.grad for leaf in (*leaves, bias)]
    return all(close(found, right) for found, right in zip(grads, exact, strict=True) if found is not None)


def linear(rows: tuple[int, ...], dtype: torch.dtype = torch.float32, bias: bool = True, strided: bool = False) -> bool:
    x, w, b = made(*rows).to(dtype), made(16, rows[-1], seed=1).to(dtype), made(16, seed=2).to(dtype) if bias else None
    weight = w.t().contiguous().to("mps").t() if strided else w.to("mps")
    exact = F.linear(x.double(), w.double(), b.double() if b is not None else None)
    try:
        found = F.linear(x.to("mps"), weight, b.to("mps") if b is not None else None)
    except RuntimeError:
        return False
    return close(found, exact, 1e-5 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps)


def convolution(bias: bool) -> bool:
    x = torch.ones(65540, 1, 2, device="mps", requires_grad=True)
    weight, offset = (
        torch.ones(2, 1, 1, device="mps", requires_grad=True),
        torch.zeros(2, device="mps").requires_grad_(),
    )
    F.conv1d(x, weight, offset if bias else None).sum().backward()
    assert x.grad is not None and weight.grad is not None
    counted = [weight.grad, *([offset.grad] if bias else [])]
    return bool((x.grad == 2).all()) and all(bool((grad == 2 * 65540).all()) for grad in counted)


def copied(copy: Callable[[Tensor], Tensor]) -> bool:
    source = torch.ones(4)
    try:
        on_mps = copy(source)
    except (AssertionError, RuntimeError):
        return False
    source.fill_(7)
    return on_mps.tolist() == [1.0] * 4


def batch_to_mps(source: Tensor) -> Tensor:
    module = torch.nn.Module()
    module.register_buffer("batch", source)
    return module.to("mps", non_blocking=True).batch  # type: ignore[return-value]


def checkpointed(reentrant: bool) -> bool:
    x = torch.ones(256, device="mps", requires_grad=True)
    try:
        y = torch.utils.checkpoint.checkpoint(partial(F.dropout, p=0.5), x, use_reentrant=reentrant)
        torch.randn(8, device="mps")
        y.sum().backward()
    except AttributeError:
        return False
    return torch.equal(x.grad, y.detach())


def cuda_autocast() -> bool:
    a = torch.ones(4, 4, device="mps")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        on = (a @ a).dtype
        with torch.autocast("cuda", enabled=False):
            return (on, (a @ a).dtype) == (torch.bfloat16, torch.float32)


Cases = list[Callable[[], bool]]
SUM, LATE, LARGE = "matmul-long-sum", "late-copy", "bmm-large-output"
INTO = partial(torch.empty, 16, 17, device="mps")

GUARDS: dict[tuple[str, str], Cases] = {
    (SUM, "aten::mm on MPS"): [
        partial(product, torch.mm),
        partial(product, torch.mm, torch.bfloat16, 2 * torch.finfo(torch.bfloat16).eps),
    ],
    (SUM, "aten::mm.out on MPS"): [partial(product, lambda a, b: torch.mm(a, b, out=INTO()))],
    (SUM, "aten::addmm on MPS"): [partial(added, lambda c, a, b: torch.addmm(c, a, b, beta=2, alpha=3))],
    (SUM, "aten::addmm_ on MPS"): [partial(added, lambda c, a, b: c.addmm_(a, b, beta=2, alpha=3))],
    (SUM, "aten::addmm.out on MPS"): [
        partial(added, lambda c, a, b: torch.addmm(c, a, b, beta=2, alpha=3, out=INTO())),
    ],
    (SUM, "aten::bmm on MPS"): [
        partial(product, lambda a, b: torch.bmm(a[None], b[None])),
        partial(product, lambda a, b: torch.einsum("bik,bkj->bij", a[None], b[None])),
    ],
    (SUM, "aten::bmm.out on MPS"): [partial(product, lambda a, b: torch.bmm(a[None], b[None], out=INTO()[None]))],
    (SUM, "aten::baddbmm on MPS"): [
        partial(added, lambda c, a, b: torch.baddbmm(c, a[None], b[None], beta=2, alpha=3)),
    ],
    (SUM, "aten::baddbmm_ on MPS"): [
        partial(added, lambda c, a, b: c[None].baddbmm_(a[None], b[None], beta=2, alpha=3)),
    ],
    (SUM, "aten::baddbmm.out on MPS"): [
        partial(added, lambda c, a, b: torch.baddbmm(c, a[None], b[None], beta=2, alpha=3, out=INTO()[None])),
    ],
    (SUM, "aten::addbmm on MPS"): [partial(added, lambda c, a, b: torch.addbmm(c, a[None], b[None], beta=2, alpha=3))],
    (SUM, "aten::addbmm_ on MPS"): [partial(added, lambda c, a, b: c.addbmm_(a[None], b[None], beta=2, alpha=3))],
    (SUM, "aten::addbmm.out on MPS"): [
        partial(added, lambda c, a, b: torch.addbmm(c, a[None], b[None], beta=2, alpha=3, out=INTO())),
    ],
    (SUM, "aten::linear on MPS"): [partial(linear, (16, LONG))],
    (SUM, "aten::linear_backward on MPS"): [
        partial(linear_gradients, (2, 8), 16, LONG),
        partial(linear_gradients, (2, LONG // 2), 16, 17),
    ],
    (LARGE, "aten::bmm on MPS"): [partial(batched, torch.bmm)],
    (LARGE, "aten::bmm.out on MPS"): [
        partial(batched, lambda a, b: torch.bmm(a, b, out=torch.empty(6, 3, 3, device="mps"))),
    ],
    ("baddbmm-beta-zero", "aten::baddbmm on MPS"): [partial(ignored, partial(torch.baddbmm, beta=0))],
    ("baddbmm-beta-zero", "aten::baddbmm_ on MPS"): [partial(ignored, lambda c, a, b: c.baddbmm_(a, b, beta=0))],
    ("linear-many-rows", "aten::linear on MPS"): [partial(linear, (65540, 1, 2))],
    ("linear-dropped-bias", "aten::linear on MPS"): [partial(linear, (1, 1, 8)), partial(linear, (80, 1, 2))],
    ("linear-half-batched", "aten::linear on MPS"): [partial(linear, (2, 3, 8), torch.float16, bias=False)],
    ("linear-transposed-bf16", "aten::linear on MPS"): [partial(linear, (2, 3, 8), torch.bfloat16, strided=True)],
    ("conv-many-rows", "aten::convolution_backward on MPS"): [partial(convolution, True), partial(convolution, False)],
    (LATE, "torch:Tensor.to"): [
        partial(copied, lambda source: source.to("mps", non_blocking=True)),
        partial(copied, lambda source: source.to("mps", torch.float32, True)),
        partial(copied, batch_to_mps),
    ],
    (LATE, "torch:Tensor.copy_"): [
        partial(copied, lambda source: torch.empty(4, device="mps").copy_(source, non_blocking=True)),
        partial(copied, lambda source: torch.empty(4, device="mps").copy_(source, True)),
    ],
    (LATE, "torch:Tensor.cuda"): [partial(copied, lambda source: source.cuda(non_blocking=True))],
    ("checkpoint-rng", "torch.mps:_initialized"): [partial(checkpointed, True), partial(checkpointed, False)],
    ("checkpoint-rng", "torch.mps:device"): [partial(checkpointed, True), partial(checkpointed, False)],
    ("cuda-autocast", "torch.amp.autocast_mode:autocast.__init__"): [cuda_autocast],
}
SIZES = {LARGE: {LARGE: 40}}


def main() -> None:
    outcomes: dict[str, dict[str, list[bool]]] = {}
    with patched(None):
        for (fault, guard), cases in GUARDS.items():
            with inject(fault, sizes=SIZES.get(fault)):
                outcomes[f"{fault}, {guard}"] = {"with": [case() for case in cases]}
    for guard in dict.fromkeys(guard for _, guard in GUARDS):
        with patched(guard):
            for fault, cases in ((fault, cases) for (fault, other), cases in GUARDS.items() if other == guard):
                with inject(fault, sizes=SIZES.get(fault)):
                    outcomes[f"{fault}, {guard}"]["without"] = [case() for case in cases]
    Path(sys.argv[1]).write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main()
