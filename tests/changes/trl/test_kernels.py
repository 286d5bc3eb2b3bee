"""TRL's log-probabilities and divergences against its Triton kernels; against float64 they are in tests/ops."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from patcher.ops import chunked_divergence as divergence_op
from patcher.ops import chunked_log_prob as log_prob_op
from patcher.ops import log_prob_entropy as entropy_op
from patcher.replacements.trl import chunked_divergence as trl_chunked_divergence
from patcher.replacements.trl import chunked_logprob as trl_chunked_logprob
from patcher.replacements.trl import logprob_entropy as trl_logprob_entropy
from tests.oracle import INTERPRETED, PATCHED

ALL = ("entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
EPS = {torch.float32: 2**-23, torch.bfloat16: 2**-8, torch.float16: 2**-11}
N, H, V = 7, 24, 61


def _function(module: Any) -> Any:
    """An autograd Function as TRL's is after the patch."""
    parts = {"forward": staticmethod(module.forward), "backward": staticmethod(module.backward)}
    return type("Patched", (torch.autograd.Function,), parts).apply


def _run(module: Any, leaves: list[Any], others: list[Any], grads: list[Any]) -> tuple[list[Any], list[Any]]:
    leaves = [None if t is None else t.detach().requires_grad_() for t in leaves]
    outputs = _function(module)(*leaves, *others)
    pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if o is not None and g is not None]
    torch.autograd.backward([o for o, _ in pairs], [g for _, g in pairs])
    return [None if o is None else o.detach() for o in outputs], [None if x is None else x.grad for x in leaves]


def _agree(found: list[Any], expected: list[Any], tolerance: float) -> None:
    """Equal up to ``tolerance`` times the largest value of each tensor; None stays None."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is None or ours.dtype == torch.bool:
            assert ours is None or torch.equal(ours, theirs)
            continue
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        scale = max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * scale)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 3 rows and 16 vocabulary entries, so that small inputs cross several of them."""
    for module in (log_prob_op, divergence_op):
        monkeypatch.setattr(module, "TOKENS", 3)
        monkeypatch.setattr(module, "VOCABULARY", 16)
    monkeypatch.setattr(entropy_op, "ELEMENTS", 3 * V)


def _head(dtype: torch.dtype, seed: int, width: int = H, bias: bool = True) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(N, 2 * width, generator=generator)[:, ::2]  # not contiguous
    weight = torch.randn(V, width, generator=generator) / 2
    return [hidden.to(dtype), weight.to(dtype), torch.randn(V, generator=generator).to(dtype) if bias else None]


def _targets() -> torch.Tensor:
    return torch.randint(0, V, (N,), generator=torch.Generator().manual_seed(5))


def _row_grads(seed: int) -> torch.Tensor:
    return torch.randn(N, generator=torch.Generator().manual_seed(seed))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("options", "bias"),
    [((0.7, 29, 5.0, 0.5, ALL), True), ((1.0, 61, None, 1.0, ()), False), ((1.3, 1024, None, 2.0, ALL[:1]), True)],
)
def test_chunked_log_prob_equals_trls_kernel(dtype: torch.dtype, options: tuple[Any, ...], bias: bool) -> None:
    """The five outputs and three gradients, with softcap, scale and temperature, over several tiles.

    Both sides round the projection and the tile's gradient to ``dtype`` at the same places; a projection that falls
    on the other side of a rounding boundary moves a logit by one eps of about 8, hence 16 eps (fp32: the sums' order).
    """
    leaves, targets = _head(dtype, 1, bias=bias), _targets()
    grads = [_row_grads(2), _row_grads(3) if "entropy" in options[4] else None, None, None, None]
    expected = INTERPRETED.call("trl_kernels:chunked_logprob", *leaves, targets, grads, tokens=4, positional=options)
    found = _run(trl_chunked_logprob, leaves, [targets, *options], grads)
    tolerance = 16 * EPS[dtype] if dtype != torch.float32 else 64 * EPS[dtype]
    _agree(found[0], expected[0], tolerance)
    _agree(found[1], expected[1], tolerance)


def test_patches_reach_trls_own_functions() -> None:
    """TRL's three Functions themselves, patched, give what the replacements give, bit for bit."""
    leaves, targets, grads = _head(torch.bfloat16, 1), _targets(), [_row_grads(2), _row_grads(3), None, None, None]
    options = (0.7, 29, 5.0, 0.5, ALL)
    found = PATCHED.call("trl_kernels:chunked_logprob", *leaves, targets, grads, tokens=4, positional=options)
    expected = _run(trl_chunked_logprob, leaves, [targets, *options], grads)
    _agree(found[0], expected[0], 0)
    _agree(found[1], expected[1], 0)
    student, teacher = _head(torch.float32, 1), _head(torch.float32, 2, bias=False)
    found = PATCHED.call("trl_kernels:chunked_divergence", student, teacher, 0.3, _row_grads(3), 4, 32, ())
    expected = _run(trl_chunked_divergence, student, [*teacher, 0.3], [_row_grads(3), None])
    _agree(found[0] + found[1], expected[0] + expected[1], 0)
    logits, grads = torch.randn(3, V), [torch.ones(3), torch.ones(3)]
    found = PATCHED.call("trl_kernels:logprob_entropy", logits, torch.arange(3), 1.0, None, grads)
    expected = _run(trl_logprob_entropy, [logits], [torch.arange(3), 1.0, None], grads)
    _agree(found[0] + found[1], expected[0] + expected[1], 0)


def test_autocast_decides_the_projections_dtype() -> None:
    """fp32 inputs under bf16 autocast give what bf16 inputs give, bit for bit."""
    leaves, targets = _head(torch.float32, 1), _targets()
    others = [targets, 1.0, 64, None, 1.0, ALL]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, _ = _run(trl_chunked_logprob, leaves, others, [None] * 5)
    rounded, _ = _run(trl_chunked_logprob, [t.bfloat16() for t in leaves], others, [None] * 5)
    outside, _ = _run(trl_chunked_logprob, leaves, others, [None] * 5)
    assert torch.equal(inside[0], rounded[0]) and not torch.equal(inside[0], outside[0])


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_chunked_divergence_equals_trls_kernel(dtype: torch.dtype, beta: float) -> None:
    """Forward, reverse and mixed divergence with softcaps; a tile's gradient is rounded on both sides."""
    student, teacher = _head(dtype, 1), _head(dtype, 2, width=H + 8, bias=False)
    options = (0.9, 0.5, 6.0, 1.5, None)
    expected = INTERPRETED.call("trl_kernels:chunked_divergence", student, teacher, beta, _row_grads(3), 4, 32, options)
    found = _run(trl_chunked_divergence, student, [*teacher, beta, *options], [_row_grads(3), None])
    _agree(found[0], expected[0], 128 * EPS[torch.float32])  # fp32 logits of up to 60, in either dtype
    _agree(found[1], expected[1], (2 if dtype != torch.float32 else 128) * EPS[dtype])


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("shape", "masked"), [((5,), True), ((2, 5), False), ((2, 5), True), ((), False)])
def test_log_prob_entropy_equals_trls_kernel(dtype: torch.dtype, shape: tuple[int, ...], masked: bool) -> None:
    """Logits with any batch strides; masked rows hold NaN and must stay without effect."""
    generator = torch.Generator().manual_seed(7)
    logits = (3 * torch.randn(*shape[:-1], *(n + 1 for n in shape[-1:]), V, generator=generator)).to(dtype)
    logits = logits[..., :-1, :] if shape else logits  # the usual shift: not contiguous over the batch
    index = torch.randint(0, V, shape, generator=generator)
    mask = torch.randint(0, 2, shape, generator=generator) if masked else None
    if mask is not None:
        logits[mask == 0] = float("nan")
    grads = [torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)]
    expected = INTERPRETED.call("trl_kernels:logprob_entropy", logits, index, 0.7, mask, grads)
    found = _run(trl_logprob_entropy, [logits], [index, 0.7, mask], grads)
    # Logits of up to 20 make exp(z - log_z) wrong by 20 eps, and the entropy's gradient multiplies it with up to 20.
    _agree(found[0], expected[0], 400 * EPS[torch.float32])
    _agree(found[1], expected[1], 400 * EPS[torch.float32] if dtype == torch.float32 else EPS[dtype])


@pytest.mark.parametrize(
    ("device", "dtype", "index_shape", "answer"),
    [
        ("mps", torch.bfloat16, (2, 3), True),
        ("cpu", torch.bfloat16, (2, 3), False),
        ("mps", torch.float64, (2, 3), False),
        ("mps", torch.bfloat16, (2, 3, 4), False),
    ],
)
def test_log_probs_of_logits_are_taken_in_fp32_on_mps(
    device: str, dtype: torch.dtype, index_shape: tuple[int, ...], answer: bool
) -> None:
    """One index per row of 16 or 32 bit logits on mps; everything else keeps TRL's own path."""
    logits = SimpleNamespace(
        device=torch.device(device), dtype=dtype, ndim=3, shape=torch.Size((2, 3, V)), stride=lambda i: 1
    )
    index = torch.zeros(index_shape, dtype=torch.int64)
    assert trl_logprob_entropy._supports_trl_loss_kernel(logits, index) is answer  # type: ignore[arg-type]
