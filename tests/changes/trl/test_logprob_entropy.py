"""TRL's log-probabilities and entropies of logits against its Triton kernel; float64 is in tests/ops."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from patcher.ops import log_prob_entropy as op
from patcher.replacements.trl import logprob_entropy as trl_logprob_entropy
from tests.changes.trl.kernels import V, agree, run
from tests.oracle import INTERPRETED, PATCHED
from tests.parity import EPS


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows to a block."""
    monkeypatch.setattr(op, "ELEMENTS", 3 * V)


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
    found = run(trl_logprob_entropy, [logits], [index, 0.7, mask], grads)
    # Logits of up to 20 make exp(z - log_z) wrong by 20 eps, and the entropy's gradient multiplies it with up to 20.
    agree(found[0], expected[0], 400 * EPS[torch.float32])
    agree(found[1], expected[1], 400 * EPS[torch.float32] if dtype == torch.float32 else EPS[dtype])


def test_the_patch_reaches_trls_own_function() -> None:
    """TRL's Function itself, patched, gives what the replacement gives, bit for bit."""
    logits, grads = torch.randn(3, V), [torch.ones(3), torch.ones(3)]
    found = PATCHED.call("trl_kernels:logprob_entropy", logits, torch.arange(3), 1.0, None, grads)
    expected = run(trl_logprob_entropy, [logits], [torch.arange(3), 1.0, None], grads)
    agree(found[0] + found[1], expected[0] + expected[1], 0)


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
