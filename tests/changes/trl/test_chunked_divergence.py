"""TRL's divergences from hidden states against its Triton kernel; against float64 they are in tests/ops."""

from __future__ import annotations

import pytest
import torch

from patcher.ops import chunked_divergence as op
from patcher.replacements.trl import chunked_divergence as trl_chunked_divergence
from tests.changes.trl.kernels import H, agree, head, row_grads, run
from tests.oracle import INTERPRETED, PATCHED
from tests.parity import EPS


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 3 rows and 16 vocabulary entries, so that small inputs cross several of them."""
    monkeypatch.setattr(op, "TOKENS", 3)
    monkeypatch.setattr(op, "VOCABULARY", 16)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_chunked_divergence_equals_trls_kernel(dtype: torch.dtype, beta: float) -> None:
    """Forward, reverse and mixed divergence with softcaps; a tile's gradient is rounded on both sides."""
    student, teacher = head(dtype, 1), head(dtype, 2, width=H + 8, bias=False)
    options = (0.9, 0.5, 6.0, 1.5, None)
    expected = INTERPRETED.call("trl_kernels:chunked_divergence", student, teacher, beta, row_grads(3), 4, 32, options)
    found = run(trl_chunked_divergence, student, [*teacher, beta, *options], [row_grads(3), None])
    agree(found[0], expected[0], 128 * EPS[torch.float32])  # fp32 logits of up to 60, in either dtype
    agree(found[1], expected[1], (2 if dtype != torch.float32 else 128) * EPS[dtype])


def test_the_patch_reaches_trls_own_function() -> None:
    """TRL's Function itself, patched, gives what the replacement gives, bit for bit."""
    student, teacher = head(torch.float32, 1), head(torch.float32, 2, bias=False)
    found = PATCHED.call("trl_kernels:chunked_divergence", student, teacher, 0.3, row_grads(3), 4, 32, ())
    expected = run(trl_chunked_divergence, student, [*teacher, 0.3], [row_grads(3), None])
    agree(found[0] + found[1], expected[0] + expected[1], 0)
