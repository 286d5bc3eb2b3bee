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

    from patcher.replacements.torch import concatenation as torch_concatenation
    from patcher.replacements.torch import indexing as torch_indexing
    from patcher.replacements.torch import matmul as torch_matmul
    from patcher.replacements.torch import sorting as torch_sorting
    from patcher.simulator.faults import inject
    from patcher.simulator.meter import Meter


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


def large_operand() -> bool:
    """The second product of attention: weights beyond the size, a small result."""
    weights, values = made(6, 3, 5), made(6, 5, 2, seed=1)
    with mock.patch.object(torch_matmul, "MOST_ELEMENTS", 40):
        return close(torch.bmm(weights.to("mps"), values.to("mps")), weights.double() @ values.double())


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


def copied_through_gaps(copy: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Every second element, and nothing in between."""
    memory, numbers = torch.zeros(4, 6), made(4, 6)
    copy(memory[:, ::2], numbers.to("mps")[:, ::2])
    expected = torch.zeros(4, 6)
    expected[:, ::2] = numbers[:, ::2]
    return torch.equal(memory, expected)


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


def attended(mask: Tensor | None, causal: bool) -> bool:
    """A forward without gradients leaves out what its recomputation with gradients leaves out."""
    q, k, v = (made(1, 4, 6, 8, seed=seed).to("mps").requires_grad_() for seed in range(3))
    found = []
    for gradients in (False, True):
        torch.manual_seed(0)
        with torch.set_grad_enabled(gradients):
            try:
                found.append(F.scaled_dot_product_attention(q, k, v, mask, dropout_p=0.5, is_causal=causal).detach())
            except NotImplementedError:
                return False
    whole = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal).detach()
    return torch.equal(*found) and not torch.allclose(found[0], whole)


def grouped_attention() -> bool:
    """Two heads of keys for four of queries; a probability of nearly 0 leaves nothing out."""
    q, k, v = made(1, 4, 6, 8), made(1, 2, 6, 8, seed=1), made(1, 2, 6, 8, seed=2)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), enable_gqa=True)
    try:
        with torch.no_grad():
            found = F.scaled_dot_product_attention(
                q.to("mps"), k.to("mps"), v.to("mps"), dropout_p=1e-12, enable_gqa=True
            )
    except NotImplementedError:
        return False
    return close(found, exact)


def reentrant_attention() -> bool:
    """The gradient of the values is what the forward has kept of them: the same mask under reentrant checkpointing."""
    zeros = torch.zeros(1, 1, 16, 8, device="mps")
    v = torch.eye(16, device="mps")[None, None].requires_grad_()

    def block(values: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(zeros, zeros, values, dropout_p=0.5)

    try:
        out = torch.utils.checkpoint.checkpoint(block, v, use_reentrant=True)
    except NotImplementedError:
        return False
    out.sum().backward()
    return torch.equal(v.grad[0, 0, :, 0], out.detach()[0, 0].sum(0))


def draws(samples: int) -> bool:
    """No token of probability 0, and the frequencies of the others, up to five standard deviations."""
    torch.manual_seed(0)
    p = torch.tensor([0.0, 0.25, 0.75, 0.0], device="mps")
    drawn = torch.stack([torch.multinomial(p, samples) for _ in range(400)]).cpu()
    return not bool((p.cpu()[drawn] == 0).any()) and abs(int((drawn[:, 0] == 1).sum()) - 100) <= 5 * 75**0.5


def positive(dtype: torch.dtype) -> bool:
    return bool((torch.empty(3, 5, device="mps", dtype=dtype).exponential_(2.0) > 0).all())


def large_table(dim: int, look_up: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """A table of 600 elements, in parts of 100."""
    table, ids = made(12, 5, 10), torch.tensor([4, 0, 1, 3, 4])
    with mock.patch.object(torch_indexing, "MOST_ELEMENTS", 100):
        found = look_up(table.to("mps"), ids.to("mps"))
    return torch.equal(found.cpu(), table.index_select(dim, ids))


def refused(call: Callable[[Tensor], object], *numbers: int) -> bool:
    """Numbers that came from the CPU are refused where one is wrong, and nothing was written."""
    memory = torch.zeros(64, device="mps")
    index = torch.tensor(numbers).to("mps")
    try:
        call(index) if call.__code__.co_argcount == 1 else call(index, memory[8:40])  # type: ignore[attr-defined,call-arg]
    except IndexError:
        return not bool(memory.any())
    return False


def joined(run: Callable[[list[Tensor]], Tensor]) -> bool:
    parts = [made(3, 4, 2, seed=seed) for seed in range(3)]
    with mock.patch.object(torch_concatenation, "MOST_ELEMENTS", 40):
        return torch.equal(run([part.to("mps") for part in parts]).cpu(), torch.cat(parts, 1))


def repeated(run: Callable[[Tensor, Tensor], Tensor]) -> bool:
    row, b = made(1, 6), made(6, 17, seed=1)
    found = run(row.to("mps").expand(64, 6), b.to("mps")).view(64, 17)
    return close(found, row.double().expand(64, 6) @ b.double())


def gradient_of_sum() -> bool:
    x, w = made(2, 32, 6), made(5, 6, seed=1)
    leaves = [t.to("mps").requires_grad_() for t in (x, w)]
    F.linear(*leaves).sum().backward()
    exact = w.double().sum(0).expand(2, 32, 6), x.double().flatten(0, 1).sum(0).expand(5, 6)
    return all(close(leaf.grad, right) for leaf, right in zip(leaves, exact, strict=True))


def inverse() -> bool:
    numbers = torch.arange(2**24, 2**24 + 9).flip(0).repeat(2).view(3, 6)
    found = numbers.to("mps").unique(return_inverse=True, return_counts=True)
    return all(
        torch.equal(a.cpu(), b)
        for a, b in zip(found, numbers.unique(return_inverse=True, return_counts=True), strict=True)
    )


def sorted_columns(dim: int, descending: bool) -> bool:
    x = made(4, 3, 50)
    with mock.patch.object(torch_sorting, "MOST_COLUMNS", 40):
        found = x.to("mps").sort(dim, descending=descending)
    return all(torch.equal(a.cpu(), b) for a, b in zip(found, x.sort(dim, descending=descending), strict=True))


def video(training: bool) -> bool:
    x = made(2, 3, 4, 5, 6)
    mean, var = torch.zeros(6), torch.ones(6)
    exact = F.batch_norm(x.permute(0, 4, 1, 2, 3).double(), mean.double(), var.double(), training=training)
    try:
        on_mps = x.to("mps").permute(0, 4, 1, 2, 3)
        found = F.batch_norm(on_mps, mean.to("mps"), var.to("mps"), training=training)
    except RuntimeError:
        return False
    return close(found, exact)


Cases = list[Callable[[], bool]]
SUM, LATE, LARGE = "matmul-long-sum", "late-copy", "bmm-large-output"
TABLE, BEYOND, ROWS = "embedding-large-table", "index-beyond-table", "product-stride-zero"
WRITE, EDGE, CAT = "index-write-beyond", "embedding-bag-edge", "cat-large-output"
ATTENTION = "aten::_scaled_dot_product_attention_math_for_mps on MPS"
INTO = partial(torch.empty, 16, 17, device="mps")
INTO_BAG = partial(torch.zeros, 1, dtype=torch.int64, device="mps")

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
    (LARGE, "aten::bmm on MPS"): [partial(batched, torch.bmm), large_operand],
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
    ("gapped-copy", "torch:Tensor.copy_"): [
        partial(copied_through_gaps, lambda view, source: view.copy_(source)),
        partial(copied_through_gaps, lambda view, source: view.copy_(source, non_blocking=True)),
    ],
    (LATE, "torch:Tensor.cuda"): [partial(copied, lambda source: source.cuda(non_blocking=True))],
    ("checkpoint-rng", "torch.mps:_initialized"): [partial(checkpointed, True), partial(checkpointed, False)],
    ("checkpoint-rng", "torch.mps:device"): [partial(checkpointed, True), partial(checkpointed, False)],
    ("cuda-autocast", "torch.amp.autocast_mode:autocast.__init__"): [cuda_autocast],
    ("attention-dropout", ATTENTION): [
        partial(attended, None, True),
        partial(attended, torch.ones(6, 6, dtype=torch.bool, device="mps").tril(), False),
        partial(attended, torch.ones(6, 6, device="mps"), False),
        grouped_attention,
        reentrant_attention,
    ],
    ("exponential-zero", "aten::exponential_ on MPS"): [
        partial(draws, 1),
        partial(draws, 2),
        *(partial(positive, dtype) for dtype in (torch.float32, torch.float16, torch.bfloat16)),
    ],
    (TABLE, "aten::index_select on MPS"): [
        partial(large_table, 0, lambda table, ids: F.embedding(ids, table.flatten(1)).view(5, 5, 10)),
        partial(large_table, 0, lambda table, ids: table.index_select(0, ids)),
        partial(large_table, 1, lambda table, ids: table.index_select(1, ids)),
        partial(large_table, 2, lambda table, ids: table.index_select(-1, ids)),
    ],
    (BEYOND, "aten::index_select on MPS"): [
        partial(refused, lambda ids: F.embedding(ids.view(2, 2), torch.ones(4, 2, device="mps")), 1, 2, 4, 3),
        partial(refused, lambda ids: F.embedding(ids[1:3], torch.ones(4, 2, device="mps")), 1, 2, 4, 3),
        partial(refused, lambda ids: torch.ones(2, 4, device="mps").index_select(1, ids), -1),
    ],
    (BEYOND, "aten::nll_loss_forward on MPS"): [
        partial(refused, lambda labels: F.cross_entropy(torch.ones(3, 4, device="mps"), labels), 1, 4, -100),
        partial(refused, lambda labels: F.cross_entropy(torch.ones(3, 4, device="mps"), labels), -100, -1, 0),
    ],
    (BEYOND, "aten::nll_loss2d_forward on MPS"): [
        partial(
            refused, lambda labels: F.cross_entropy(torch.ones(1, 4, 1, 2, device="mps"), labels.view(1, 1, 2)), 4, 0
        ),
    ],
    (WRITE, "aten::index_copy_ on MPS"): [
        partial(refused, lambda index, part: part.index_copy_(0, index, torch.ones(2, device="mps")), 32, 0),
        partial(refused, lambda index, part: part.index_copy_(0, index, torch.ones(1, device="mps")), -1),
    ],
    (WRITE, "aten::index_fill_.int_Scalar on MPS"): [
        partial(refused, lambda index, part: part.index_fill_(0, index, 1.0), 32),
        partial(refused, lambda index, part: part.index_fill_(0, index, 1.0), -33),
    ],
    (WRITE, "aten::index_fill_.int_Tensor on MPS"): [
        partial(refused, lambda index, part: part.index_fill_(0, index, torch.ones((), device="mps")), 32),
    ],
    (EDGE, "aten::_embedding_bag on MPS"): [
        partial(
            refused, lambda ids: F.embedding_bag(ids, torch.ones(4, 2, device="mps", requires_grad=True), INTO_BAG()), 4
        ),
    ],
    (EDGE, "aten::_embedding_bag_forward_only on MPS"): [
        partial(refused, lambda ids: F.embedding_bag(ids, torch.ones(4, 2, device="mps"), INTO_BAG()), 4),
    ],
    (CAT, "aten::cat on MPS"): [
        partial(joined, lambda parts: torch.cat(parts, 1)),
        partial(joined, lambda parts: torch.cat(parts, -2)),
    ],
    (CAT, "aten::cat.out on MPS"): [
        partial(joined, lambda parts: torch.cat(parts, 1, out=torch.empty(3, 12, 2, device="mps"))),
        partial(joined, lambda parts: torch.cat(parts, 1, out=torch.empty(0, device="mps"))),
    ],
    (ROWS, "aten::mm on MPS"): [partial(repeated, torch.mm)],
    (ROWS, "aten::bmm on MPS"): [partial(repeated, lambda a, b: torch.bmm(a[None], b[None]))],
    (ROWS, "aten::addmm on MPS"): [partial(repeated, lambda a, b: torch.addmm(torch.zeros(17, device="mps"), a, b))],
    (ROWS, "aten::linear on MPS"): [partial(repeated, lambda a, b: F.linear(a, b.t().contiguous()))],
    (ROWS, "aten::linear_backward on MPS"): [gradient_of_sum],
    ("unique-large-integers", "aten::_unique2 on MPS"): [inverse],
    ("sort-many-columns", "aten::sort.stable on MPS"): [
        partial(sorted_columns, 0, False),
        partial(sorted_columns, 1, True),
    ],
    ("batch-norm-strided", "aten::native_batch_norm on MPS"): [partial(video, True), partial(video, False)],
}
SIZES = {name: {name: 40} for name in (LARGE, CAT, "sort-many-columns")} | {TABLE: {TABLE: 100}}


def usual() -> None:
    """What a training step and a generated token ask of the guarded operators, with nothing to be mended."""
    ids = torch.tensor([[1, 2, 3, 0]]).to("mps")
    table, weight = (made(8, 8, seed=seed).to("mps").requires_grad_() for seed in range(2))
    x = F.embedding(ids, table)
    x = torch.cat([x, x], 1)
    logits = F.linear(x, weight).squeeze(0)
    F.cross_entropy(logits, torch.tensor([1, 2, -100, 0] * 2).to("mps")).backward()
    with torch.no_grad():
        q = x.view(1, 1, 8, 8)
        F.scaled_dot_product_attention(q, q, q, is_causal=True)
        torch.bmm(q[0], q[0])
        logits.softmax(-1).sort(-1)
        ids.unique()
        q[0, 0].index_copy_(0, ids[0], q[0, 0, :4].clone())
        F.batch_norm(q, None, None, training=True)


def cost() -> list[object]:
    """Kernels, waits for the GPU and copies of `usual`."""
    with Meter() as meter:
        usual()
    usage = meter.usage()
    return [usage.dispatches, usage.synchronizations, str(usage.copies)]


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
    bare = cost()
    with patched(None):
        guarded = cost()
    Path(sys.argv[1]).write_text(json.dumps({"guards": outcomes, "cost": {"bare": bare, "guarded": guarded}}))


if __name__ == "__main__":
    main()
