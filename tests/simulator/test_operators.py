"""Operators that training a language model, a vision or an audio model reaches: forward and gradients as on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

Op = Callable[..., object]

INDEX = torch.tensor([[2, 0, 1], [1, 1, 0]])
MASK = torch.tensor([[True, False, True, False]] * 3)

FLOAT_OPS: dict[str, tuple[Op, tuple[tuple[int, ...], ...]]] = {
    "embedding": (lambda w, i: F.embedding(i[0], w, padding_idx=1), ((3, 4),)),
    "index_put": (lambda x, i: x.clone().index_put_((i[0],), x[i[1]], accumulate=True), ((3, 4),)),
    "scatter": (lambda x, i: x.scatter_add(0, i.t(), x[:, :2] * 2), ((3, 4),)),
    "gather": (lambda x, i: x.gather(1, i[:, :2].repeat(2, 1)[:3]), ((3, 4),)),
    "index_select": (lambda x, i: x.index_select(0, i[0]), ((3, 4),)),
    "cross_entropy": (lambda x, i: F.cross_entropy(x, i[0], ignore_index=1, label_smoothing=0.1), ((3, 4),)),
    "nll_loss": (lambda x, i: F.nll_loss(x.log_softmax(-1), i[0], reduction="sum"), ((3, 4),)),
    "layer_norm": (lambda x, w, b, i: F.layer_norm(x, (4,), w, b), ((3, 4), (4,), (4,))),
    "rms_norm": (lambda x, w, i: F.rms_norm(x, (4,), w, 1e-6), ((3, 4), (4,))),
    "group_norm": (lambda x, w, b, i: F.group_norm(x, 2, w, b), ((2, 4, 5), (4,), (4,))),
    "batch_norm": (lambda x, w, b, i: F.batch_norm(x, None, None, w, b, training=True), ((3, 4, 5), (4,), (4,))),
    "gelu": (lambda x, i: F.gelu(x) + F.gelu(x, approximate="tanh"), ((3, 4),)),
    "silu": (lambda x, y, i: F.silu(x) * y, ((3, 4), (3, 4))),
    "activations": (lambda x, i: x.relu() + x.sigmoid() + x.tanh() + F.softplus(x) + F.leaky_relu(x), ((3, 4),)),
    "softmax": (lambda x, i: x.softmax(-1, dtype=torch.float32) + x.log_softmax(0), ((3, 4),)),
    "dropout": (lambda x, i: F.dropout(x, 0.5) + F.dropout1d(x, 0.5), ((3, 4),)),
    "cumsum": (lambda x, i: x.cumsum(0) + x.cumprod(1) + x.logcumsumexp(1), ((3, 4),)),
    "where": (lambda x, y, i: torch.where(x > 0, x, y), ((3, 4), (4,))),
    "masked_fill": (lambda x, i: x.masked_fill(x > 0, float("-inf")).softmax(-1), ((3, 4),)),
    "sort": (lambda x, i: (*x.sort(descending=True), *x.topk(2), x.argmax(-1)), ((3, 4),)),
    "reductions": (lambda x, i: (x.mean(0), x.var(1), x.std(), x.amax(1), x.norm(), x.logsumexp(1)), ((3, 4),)),
    "einsum": (lambda x, y, i: torch.einsum("bij,bjk->bik", x, y), ((2, 3, 4), (2, 4, 2))),
    "linear": (lambda x, w, b, i: F.linear(x, w, b), ((2, 3, 4), (5, 4), (5,))),
    "baddbmm": (lambda x, y, z, i: torch.baddbmm(x, y, z, beta=0.5, alpha=2), ((2, 3, 2), (2, 3, 4), (2, 4, 2))),
    "conv1d": (lambda x, w, b, i: F.conv1d(x, w, b, stride=2, padding=1), ((2, 4, 9), (6, 4, 3), (6,))),
    "conv2d": (lambda x, w, b, i: F.conv2d(x, w, b, dilation=2, groups=2), ((1, 4, 9, 8), (6, 2, 3, 3), (6,))),
    "conv_transpose": (lambda x, w, b, i: F.conv_transpose1d(x, w, b, stride=2), ((2, 4, 5), (4, 3, 3), (3,))),
    "pooling": (lambda x, i: F.max_pool2d(x, 2) + F.avg_pool2d(x, 2) + F.adaptive_avg_pool2d(x, 2), ((1, 2, 4, 4),)),
    "interpolate": (lambda x, i: F.interpolate(x, scale_factor=2, mode="bicubic"), ((1, 2, 4, 4),)),
    "pad": (lambda x, i: F.pad(x, (1, 2), mode="reflect") + F.pad(x, (3, 0)), ((1, 3, 4),)),
    "rotate": (lambda x, i: torch.cat((-x[..., 2:], x[..., :2]), -1) * x.cos() + x.roll(1, -1).sin(), ((3, 4),)),
    "repeat": (lambda x, i: x.repeat_interleave(2, 0) + x.repeat(2, 1) + x.flip(0).tile(2, 1), ((3, 4),)),
    "triangles": (lambda x, i: x.triu(1) + x.tril() + x.diagonal_scatter(x[:, 0]), ((3, 3),)),
    "fft": (lambda x, i: torch.stft(x, 8, window=torch.ones(8, device=x.device), return_complex=True).abs(), ((32,),)),
    "kl_div": (lambda x, y, i: F.kl_div(x.log_softmax(-1), y.softmax(-1), reduction="batchmean"), ((3, 4), (3, 4))),
    "bce": (lambda x, y, i: F.binary_cross_entropy_with_logits(x, y.sigmoid()), ((3, 4), (3, 4))),
    "solve": (lambda x, y, i: torch.linalg.solve(x + 3 * torch.eye(3, device=x.device), y), ((3, 3), (3, 2))),
}


def run(device: str, op: Op, shapes: tuple[tuple[int, ...], ...]) -> tuple[list[Tensor], list[Tensor | None]]:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator).to(device).requires_grad_() for shape in shapes]
    torch.manual_seed(0)
    results = op(*inputs, INDEX.to(device))
    outputs = list(results) if isinstance(results, tuple) else [results]
    assert all(isinstance(out, Tensor) and out.device.type == device for out in outputs)
    loss = sum((out.sin().sum() for out in outputs if out.requires_grad), torch.zeros((), device=device))
    grads = torch.autograd.grad(loss, inputs, allow_unused=True)
    return [out.detach().cpu() for out in outputs], [None if g is None else g.cpu() for g in grads]


@pytest.mark.parametrize("name", FLOAT_OPS)
def test_forward_and_gradient_are_the_cpus(name: str) -> None:
    """The same kernels run on the same numbers: equal to the last bit."""
    op, shapes = FLOAT_OPS[name]
    for result, expected in zip(run("mps", op, shapes), run("cpu", op, shapes), strict=True):
        for ours, theirs in zip(result, expected, strict=True):
            assert (ours is None) == (theirs is None)
            assert ours is None or torch.equal(ours, theirs)


INTEGER_OPS: dict[str, Callable[[str], object]] = {
    "multinomial": lambda d: torch.multinomial(torch.arange(1.0, 6.0, device=d), 3),
    "randint": lambda d: torch.randint(0, 100, (8,), device=d),
    "bernoulli": lambda d: torch.bernoulli(torch.full((9,), 0.4, device=d)),
    "exponential": lambda d: torch.empty(5, device=d).exponential_(),
    "trunc_normal": lambda d: torch.nn.init.trunc_normal_(torch.empty(4, 3, device=d)),
    "nonzero": lambda d: MASK.to(d).nonzero(),
    "unique": lambda d: torch.cat([t.flatten() for t in torch.unique(INDEX.to(d), return_counts=True)]),
    "one_hot": lambda d: F.one_hot(INDEX.to(d), 4),
    "bincount": lambda d: torch.bincount(INDEX.to(d).flatten()),
    "isin": lambda d: torch.isin(INDEX.to(d), torch.tensor([1, 5], device=d)),
    "bits": lambda d: (INDEX.to(d) << 2) | (INDEX.to(d) & 1) ^ 3,
    "searchsorted": lambda d: torch.searchsorted(torch.arange(5.0, device=d), torch.tensor([0.5, 3.2], device=d)),
    "masked_select": lambda d: torch.arange(12, device=d).view(3, 4)[MASK.to(d)],
    "masked_scatter": lambda d: torch.zeros(3, 4, device=d).masked_scatter(MASK.to(d), torch.ones(6, device=d)),
    "int8 matmul": lambda d: torch.mm(
        torch.ones(32, 16, dtype=torch.int8, device=d).triu(), torch.ones(16, 8, dtype=torch.int8, device=d)
    ),
}


@pytest.mark.parametrize("name", INTEGER_OPS)
def test_other_operators_are_the_cpus(name: str) -> None:
    """Sampling, indexing and integer operators, with the same seed."""
    results = []
    for device in ("mps", "cpu"):
        torch.manual_seed(2)
        results.append(INTEGER_OPS[name](device))
    ours, theirs = results
    assert isinstance(ours, Tensor) and ours.device.type == "mps"
    assert torch.equal(ours.cpu(), theirs)


def test_running_statistics_are_written_in_place() -> None:
    """Batch norm updates its buffers, which its schema does not say."""
    ours, theirs = torch.nn.BatchNorm1d(3).to("mps"), torch.nn.BatchNorm1d(3)
    x = torch.randn(8, 3)
    ours(x.to("mps"))
    theirs(x)
    assert torch.equal(ours.running_mean.cpu(), theirs.running_mean)
    assert torch.equal(ours.running_var.cpu(), theirs.running_var)
    assert ours.num_batches_tracked.item() == 1


def test_custom_operators_reach_their_kernels() -> None:
    """A Python kernel registered for mps is called with mps tensors; one for the CPU alone is missing, as on a Mac."""
    library = torch.library.Library("simulator_test", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.define("where_am_i(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CPU")
    library.impl("where_am_i", lambda x: x + (1 if x.device.type == "mps" else 0), "MPS")
    x = torch.ones(2, device="mps")
    with pytest.raises(NotImplementedError, match="'simulator_test::twice' is not currently implemented"):
        torch.ops.simulator_test.twice(x)
    assert torch.ops.simulator_test.where_am_i(x).tolist() == [2.0, 2.0]


@pytest.mark.slow
def test_bitsandbytes_quantizes_on_mps() -> None:
    """bitsandbytes' own mps kernels give the packed weights of its CPU kernels."""
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    packed, state = functional.quantize_4bit(weight.to("mps"), quant_type="nf4", blocksize=64)
    expected, expected_state = functional.quantize_4bit(weight, quant_type="nf4", blocksize=64)
    assert packed.device.type == "mps" and torch.equal(packed.cpu(), expected)
    restored = functional.dequantize_4bit(packed, state)
    assert torch.equal(restored.cpu(), functional.dequantize_4bit(expected, expected_state))
