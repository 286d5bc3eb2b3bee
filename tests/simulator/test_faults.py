"""Faults on demand: each shows its wrong number in plain torch, none is on by default, and all go again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from patcher.errors import InvalidSwitch
from patcher.simulator import Device, faults
from patcher.simulator.faults import FAULTS, inject
from tests.process import run_python

SWITCHED = [name for name, fault in FAULTS.items() if not fault.inherent]
LONG = 32767


def made(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to("mps")


def wrong(found: Tensor, right: Tensor) -> bool:
    """Not equal up to rounding: fp32 sums of 32767 terms in another order differ by some 1e-5 of the largest."""
    return not torch.allclose(found.cpu().float(), right.cpu().float(), rtol=1e-2, atol=1e-2 * right.abs().max().item())


def product(run: Callable[..., Tensor], rows: int = 16, terms: int = LONG, columns: int = 16) -> bool:
    a, b = made(rows, terms), made(terms, columns, seed=1)
    return wrong(run(a, b).view(rows, columns), a.cpu() @ b.cpu())


def linear_gradients(rows: int, inputs: int, outputs: int) -> list[bool]:
    def run(device: str) -> list[Tensor]:
        x, w = (made(*shape).to(device).requires_grad_() for shape in ((rows, inputs), (outputs, inputs)))
        F.linear(x, w).backward(made(rows, outputs, seed=2).to(device))
        return [x.grad, w.grad]

    return [wrong(found, right) for found, right in zip(run("mps"), run("cpu"), strict=True)]


def late(change: Callable[[list[Tensor]], object], use: Callable[[Tensor], object] = lambda copied: None) -> bool:
    source = [torch.full((4,), 3.0)]
    copied = source[0].to("mps", non_blocking=True)
    use(copied)
    change(source)
    return copied.tolist() != [3.0] * 4


def causal_leak(dtype: torch.dtype) -> list[int]:
    """For each of 8 queries, how many later tokens it sees: the values are powers of two."""
    q = torch.zeros(1, 1, 8, 8, device="mps", dtype=dtype)
    v = torch.eye(8, device="mps", dtype=dtype)[None, None]
    seen = F.scaled_dot_product_attention(q, q, v, is_causal=True)[0, 0] > 0
    return (seen.sum(-1).cpu() - torch.arange(1, 9)).tolist()


def strided() -> bool:
    q, k, v = (made(2, 5, 3, 8, seed=seed).transpose(1, 2) for seed in range(3))
    return wrong(
        F.scaled_dot_product_attention(q, k, v),
        F.scaled_dot_product_attention(q.contiguous(), k.contiguous(), v.contiguous()),
    )


def padded() -> bool:
    q, mask = made(1, 1, 3, 8).half(), torch.ones(3, 3, dtype=torch.bool, device="mps")
    mask[1] = False
    return bool(F.scaled_dot_product_attention(q, q, q, attn_mask=mask).isnan().any())


def large_bmm() -> bool:
    a, b = made(6, 3, 5), made(6, 3, 5, seed=1).transpose(1, 2)
    return wrong(torch.bmm(a, b), torch.bmm(a.cpu(), b.cpu()))


def large_operand() -> bool:
    a, b = made(6, 3, 5), made(6, 5, 2, seed=1)
    return wrong(torch.bmm(a, b), torch.bmm(a.cpu(), b.cpu()))


def beta_zero() -> bool:
    one = torch.ones(1, 1, 1, device="mps")
    return torch.baddbmm(one * float("nan"), one, one, beta=0).tolist() != [[[1.0]]]


def linear(rows: tuple[int, ...], dtype: torch.dtype = torch.float32, bias: bool = True) -> bool:
    x, w, b = made(*rows).to(dtype), made(6, rows[-1], seed=1).to(dtype), made(6, seed=2).to(dtype) if bias else None
    right = F.linear(x.cpu().float(), w.cpu().float(), b.cpu().float() if b is not None else None)
    return wrong(F.linear(x, w, b), right)


def aborts() -> bool:
    try:
        F.linear(made(2, 3, 4).bfloat16(), made(4, 5).bfloat16().t())
    except RuntimeError as error:
        return "aborts the process" in str(error)
    return False


def reductions() -> list[bool]:
    x = made(50)
    return [x.argmax().item() != x.cpu().argmax(), not (x == x).any(), not (x == x).all()]


def norm(input_needs_gradient: bool) -> bool:
    x, weight = made(3, 8).requires_grad_(input_needs_gradient), torch.ones(8, device="mps", requires_grad=True)
    F.layer_norm(x, (8,), weight).sum().backward()
    assert weight.grad is not None
    return wrong(weight.grad, F.layer_norm(x.detach().cpu(), (8,)).sum(0))


def convolution(batch: int) -> bool:
    weight = torch.zeros(2, 1, 1, device="mps", requires_grad=True)
    F.conv1d(torch.ones(batch, 1, 1, device="mps"), weight).sum().backward()
    assert weight.grad is not None
    return weight.grad.flatten().tolist() != [batch, batch]


def scaled(optimizer: str) -> bool:
    """One step of a fused optimizer whose scaler has found an infinity changes nothing."""
    weight = torch.ones(4, device="mps", requires_grad=True)
    weight.grad = torch.ones_like(weight)
    step = getattr(torch.optim, optimizer)([weight], lr=0.1, fused=True)
    step.grad_scale, step.found_inf = torch.full((), 2.0, device="mps"), torch.ones((), device="mps")
    step.step()
    return weight.tolist() != [1.0] * 4


def draws_nothing() -> bool:
    """Of two tokens the first has probability 0."""
    return bool(torch.multinomial(torch.tensor([0.0, 1.0], device="mps"), 1).item() == 0)


def zero_rows(dim: int = 0) -> bool:
    """Some elements of a table of 60 lie beyond its size."""
    table, ids = made(6, 10).abs() + 1, torch.tensor([0, 5], device="mps")
    return bool((table.index_select(dim, ids) == 0).any())


def beyond(look_up: Callable[[], Tensor]) -> bool:
    """Nothing is raised."""
    try:
        look_up()
        torch.mps.synchronize()
    except (IndexError, RuntimeError):
        return False
    return True


def label_beyond(grad: bool = False) -> bool:
    scores = made(2, 3).requires_grad_(grad)
    try:
        loss = F.cross_entropy(scores, torch.tensor([1, 3], device="mps"), reduction="none")
    except IndexError:
        return False
    if grad:
        loss.sum().backward()
        assert scores.grad is not None
        return bool((scores.grad[1] == 0).all())
    return loss[1].item() == 0


def small_variance(offset: float, spread: float) -> bool:
    row = offset + spread * torch.tensor([[-1.0, -1.0, 1.0, 1.0]])
    return wrong(F.layer_norm(row.to("mps"), (4,), eps=1e-12), F.layer_norm(row.double(), (4,), eps=1e-12))


def masks_raise() -> bool:
    x, mask = made(4), torch.ones(4, dtype=torch.bool, device="mps")
    try:
        for _ in range(20):
            x[mask]
    except torch.AcceleratorError:
        return True
    return False


def repeated(run: Callable[[Tensor, Tensor], Tensor]) -> bool:
    row = made(1, 4)
    return wrong(run(row.expand(32, 4), made(4, 3, seed=1)), row.cpu().expand(32, 4) @ made(4, 3, seed=1).cpu())


def gradient_of_sum() -> list[bool]:
    def run(device: str) -> list[Tensor]:
        x, w = (made(*shape).to(device).requires_grad_() for shape in ((32, 4), (5, 4)))
        F.linear(x, w).sum().backward()
        return [x.grad, w.grad]

    return [wrong(found, right) for found, right in zip(run("mps"), run("cpu"), strict=True)]


def inverse(start: int) -> bool:
    numbers = torch.arange(start, start + 5)
    values, places = numbers.to("mps").unique(return_inverse=True)
    return values.cpu()[places.cpu()].tolist() != numbers.tolist()


def unsorted(dim: int) -> bool:
    x = made(3, 50)
    return not torch.equal(x.argsort(dim).cpu(), x.cpu().argsort(dim))


def bag(index: int) -> bool:
    table, offsets = torch.ones(4, 2, device="mps"), torch.tensor([0], device="mps")
    return beyond(lambda: F.embedding_bag(torch.tensor([index], device="mps"), table, offsets))


def video(permuted: bool) -> bool:
    x = made(2, 3, 4, 5, 6)
    try:
        F.batch_norm(x.permute(0, 4, 1, 2, 3) if permuted else x, None, None, training=True)
    except RuntimeError as error:
        return "aborts the process" in str(error)
    return False


def written(write: Callable[[Tensor], Tensor], place: int) -> bool:
    memory = torch.zeros(64, device="mps")
    try:
        write(memory[8:40])
    except IndexError:
        return False
    return memory[place].item() == 7 and memory.sum().item() == 7


def gapped(source: Tensor, view: Callable[[Tensor], Tensor]) -> bool:
    """Other elements than those of the view are written, or these get other values."""
    memory = torch.zeros(source.shape)
    right = memory.clone()
    view(memory).copy_(view(source))
    view(right).copy_(view(source).cpu())
    return not torch.equal(memory, right)


def at(*places: int) -> Tensor:
    return torch.tensor(places, device="mps")


SHOWN: dict[str, list[Callable[[], object]]] = {
    "matmul-long-sum": [
        partial(product, torch.mm),
        partial(product, lambda a, b: torch.bmm(a[None], b[None])),
        partial(product, lambda a, b: torch.einsum("bik,bkj->bij", a[None], b[None])),
        partial(product, lambda a, b: torch.addmm(torch.zeros(16, device="mps"), a, b)),
        partial(product, lambda a, b: torch.zeros(16, 16, device="mps").addmm_(a, b)),
        partial(product, lambda a, b: torch.baddbmm(torch.zeros(1, 1, 1, device="mps"), a[None], b[None])),
        partial(product, lambda a, b: torch.mm(a, b, out=torch.empty(16, 16, device="mps"))),
        partial(product, lambda a, b: F.linear(a, b.t().contiguous())),
        lambda: linear_gradients(16, 16, LONG)[0],
        lambda: linear_gradients(LONG, 16, 16)[1],
    ],
    "late-copy": [partial(late, lambda source: source[0].fill_(7)), partial(late, lambda source: source.clear())],
    "causal-leak": [lambda: any(causal_leak(torch.float16)), lambda: any(causal_leak(torch.bfloat16))],
    "strided-attention": [strided],
    "padded-row-nan": [padded],
    "bmm-large-output": [large_bmm, large_operand],
    "baddbmm-beta-zero": [beta_zero],
    "linear-many-rows": [partial(linear, (65537, 1, 2))],
    "linear-dropped-bias": [partial(linear, (1, 2)), partial(linear, (80, 1, 2))],
    "linear-half-batched": [partial(linear, (2, 3, 4), dtype, False) for dtype in (torch.float16, torch.bfloat16)],
    "linear-transposed-bf16": [aborts],
    "reduction-large-input": [lambda: all(reductions())],
    "layer-norm-frozen-input": [partial(norm, False)],
    "conv-many-rows": [partial(convolution, 65540)],
    "fused-optimizer-scale": [partial(scaled, name) for name in ("Adam", "AdamW", "SGD")],
    "exponential-zero": [
        draws_nothing,
        lambda: (torch.empty(3, 2, device="mps").exponential_() == 0).any(),
    ],
    "embedding-large-table": [zero_rows, partial(zero_rows, 1)],
    "index-beyond-table": [
        partial(beyond, lambda: F.embedding(at(0, 4), made(4, 2))),
        partial(beyond, lambda: made(4, 2).index_select(1, at(-1))),
        label_beyond,
        partial(label_beyond, True),
    ],
    "cat-large-output": [lambda: torch.cat([torch.ones(6, 5, device="mps")] * 2, 1).sum().item() == 40],
    "layer-norm-small-variance": [partial(small_variance, 0.0, 9e-4), partial(small_variance, 1000.0, 0.1)],
    "mask-index-race": [masks_raise],
    "product-stride-zero": [
        partial(repeated, torch.mm),
        partial(repeated, lambda a, b: torch.bmm(a[None], b[None])[0]),
        partial(repeated, lambda a, b: torch.addmm(torch.zeros(3, device="mps"), a, b)),
        partial(repeated, lambda a, b: F.linear(a, b.t().contiguous())),
        lambda: gradient_of_sum()[0],
    ],
    "unique-large-integers": [partial(inverse, 2**24)],
    "sort-many-columns": [partial(unsorted, 0)],
    "embedding-bag-edge": [partial(bag, 4)],
    "batch-norm-strided": [partial(video, True)],
    "gapped-copy": [
        lambda: gapped(made(20), lambda x: x[::2]),
        lambda: gapped(made(4, 6), lambda x: x[:, 1:4]),
    ],
    "index-write-beyond": [
        partial(written, lambda part: part.index_copy_(0, at(40), made(1) * 0 + 7), 48),
        partial(written, lambda part: part.index_copy_(0, at(-1), made(1) * 0 + 7), 7),
        partial(written, lambda part: part.index_fill_(0, at(40), 7), 48),
        partial(written, lambda part: part.index_fill_(0, at(-33), torch.tensor(7.0, device="mps")), 7),
    ],
}
SPARED: dict[str, list[Callable[[], object]]] = {
    "matmul-long-sum": [
        partial(product, torch.mm, terms=LONG - 1),
        partial(product, torch.mm, rows=15),
        lambda: any(linear_gradients(16, 15, LONG)),
    ],
    "late-copy": [
        partial(late, lambda source: source[0].fill_(7), lambda copied: torch.mps.synchronize()),
        partial(late, lambda source: source.clear(), lambda copied: copied + 1),
    ],
    "causal-leak": [lambda: any(causal_leak(torch.float32))],
    "linear-many-rows": [partial(linear, (65536, 1, 2)), partial(linear, (65537, 2))],
    "linear-dropped-bias": [partial(linear, (2, 2))],
    "linear-half-batched": [partial(linear, (3, 4), torch.float16, False), partial(linear, (2, 3, 4), bias=False)],
    "layer-norm-frozen-input": [partial(norm, True)],
    "conv-many-rows": [partial(convolution, 65535)],
    "exponential-zero": [lambda: torch.multinomial(torch.ones(4, device="mps"), 8, replacement=True).numel() != 8],
    "index-beyond-table": [partial(zero_rows), lambda: F.cross_entropy(made(1, 3), at(-100)).item() == 0],
    "layer-norm-small-variance": [partial(small_variance, 0.0, 2e-3), partial(small_variance, 1.0, 0.5)],
    "product-stride-zero": [partial(product, torch.mm, terms=64)],
    "unique-large-integers": [partial(inverse, 2**24 - 5)],
    "gapped-copy": [
        lambda: gapped(made(20), lambda x: x[4:9]),
        lambda: not torch.equal(torch.zeros(6, 4).t().copy_(made(4, 6)), made(4, 6).cpu()),
    ],
    "sort-many-columns": [partial(unsorted, 1)],
    "embedding-bag-edge": [partial(bag, 5)],
    "batch-norm-strided": [partial(video, False)],
    "index-write-beyond": [partial(written, lambda part: part.index_fill_(0, at(-33 + 32), 7), 0)],
}
"""Where each fault leaves the result right: just below its size, and for other arguments."""

SMALL = dict.fromkeys(
    (
        *("bmm-large-output", "reduction-large-input", "embedding-large-table"),
        *("cat-large-output", "sort-many-columns"),
    ),
    40,
)
"""Sizes for faults that need more memory than a test has."""


def test_the_device_can_do_what_the_table_says(device: Device) -> None:
    """Every fault that is not torch's own is one of the device, and has a test here."""
    assert sorted(device._native.fault_names()) == sorted(SWITCHED) == sorted(SHOWN)


@pytest.mark.parametrize("name", SWITCHED)
def test_a_fault_shows_while_it_is_on(name: str, device: Device) -> None:
    """Right without it, wrong with it, for every operator that it concerns; right again after it."""
    assert device.faults == ()
    assert [bool(shows()) for shows in SHOWN[name]] == [False] * len(SHOWN[name])
    with inject(name, sizes={name: SMALL[name]} if name in SMALL else None):
        assert device.faults == (name,)
        assert [bool(shows()) for shows in SHOWN[name]] == [True] * len(SHOWN[name])
        assert [bool(shows()) for shows in SPARED.get(name, [])] == [False] * len(SPARED.get(name, []))
    assert device.faults == ()
    assert not SHOWN[name][0]()


def test_a_causal_leak_is_up_to_three_tokens(device: Device) -> None:
    """One look at the mask for every four queries."""
    with inject("causal-leak"):
        assert causal_leak(torch.float16) == [3, 2, 1, 0, 3, 2, 1, 0]


def test_checkpointed_dropout_is_wrong_in_unpatched_torch(device: Device) -> None:
    """The fault is in torch's Python: the recomputed mask is another one, switched on or not."""
    for names in ((), ("checkpoint-rng",)):
        with inject(*names):
            x = torch.ones(256, device="mps", requires_grad=True)
            y = torch.utils.checkpoint.checkpoint(partial(F.dropout, p=0.5), x, use_reentrant=False)
            y.sum().backward()
            assert not torch.equal(x.grad, y.detach())


def test_blocks_nest_and_end_in_any_order(device: Device) -> None:
    """An inner block adds; an exception takes its faults along; leaving the outer one first leaves the inner ones."""
    with inject("late-copy"):
        with pytest.raises(KeyError), inject("causal-leak", "late-copy"):
            assert device.faults == ("causal-leak", "late-copy")
            raise KeyError
        assert device.faults == ("late-copy",)
    outer, inner = inject("late-copy"), inject("causal-leak")
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert device.faults == ("causal-leak",)
    inner.__exit__(None, None, None)
    assert device.faults == ()


def test_an_unknown_fault_is_refused_with_the_list(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name and by variable; nothing is switched on."""
    with pytest.raises(InvalidSwitch, match=r"matmul-long-sum, late-copy(.|\n)*found:\s+nonsense"), inject("nonsense"):
        pass
    monkeypatch.setenv(faults.VARIABLE, "late-copy, nonsense")
    with pytest.raises(InvalidSwitch, match="nonsense"):
        faults.from_environment()
    assert device.faults == ()


def test_the_variable_switches_faults_on_at_the_start() -> None:
    """In a process of its own, for its whole life."""
    code = (
        "import torch\nfrom patcher.simulator import start\ndevice = start()\n"
        "s = torch.ones(2)\nc = s.to('mps', non_blocking=True)\ns.fill_(7)\nprint(device.faults, c.tolist())"
    )
    done = run_python("-c", code, timeout=120, **{faults.VARIABLE: " late-copy ,cuda-autocast"})
    assert done.stdout.strip() == "('cuda-autocast', 'late-copy') [7.0, 7.0]", done.stderr


def test_late_copies_are_made_when_the_fault_goes(device: Device) -> None:
    """A copy that is still waiting when the block is left arrives, with what its source holds then."""
    with inject("late-copy"):
        source = torch.ones(2)
        copied = source.to("mps", non_blocking=True)
    source.fill_(7)
    assert copied.tolist() == [1.0, 1.0]
