"""What flash-attn's arguments mean, by the definition in float64 and by torch's own attention."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from patcher.errors import NotOnMac
from patcher.ops.flash_attention import flash_attention, flash_attention_varlen, pattern_of, refuse
from tests.ops.attention import tensors


@pytest.mark.parametrize("window", [(-1, -1), (2, -1), (-1, 1), (3, 2), (0, 0)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("softcap", [0.0, 1.5])
def test_the_last_query_stands_at_the_last_key(window: tuple[int, int], causal: bool, softcap: float) -> None:
    """Five queries of nine keys, a window to each side; -1 has no end, and 0 is no cap. Sums of 9 terms in fp32."""
    q, k, v = tensors(torch.float32, (2, 5, 4, 8), (2, 9, 2, 8), (2, 9, 2, 6))
    out, lse = flash_attention(q, k, v, pattern_of(q, causal=causal, window_size=window, softcap=softcap))
    wide = [x.double().transpose(1, 2) for x in (q, k.repeat_interleave(2, 2), v.repeat_interleave(2, 2))]
    scores = wide[0] @ wide[1].mT * 8**-0.5
    scores = softcap * torch.tanh(scores / softcap) if softcap else scores
    away = torch.arange(9) - (torch.arange(5)[:, None] + 4)
    left, right = (float("inf") if side < 0 else side for side in window)
    hidden = (away < -left) | (away > (0 if causal else right))
    scores = scores.masked_fill(hidden, -torch.inf)
    torch.testing.assert_close(out.transpose(1, 2).double(), scores.softmax(-1) @ wide[2], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lse.double(), scores.logsumexp(-1), rtol=1e-5, atol=1e-5)
    assert out.shape == (2, 5, 4, 6) and lse.dtype == torch.float32


def test_packed_rows_are_computed_apart() -> None:
    """Each as torch computes it alone; a scale of one's own."""
    lengths = (3, 1, 6)
    q, k, v = tensors(torch.float32, *[(10, 4, 8)] * 3)
    starts = torch.tensor([0, 3, 4, 10], dtype=torch.int32)
    pattern = pattern_of(q, causal=True, softmax_scale=0.5)
    out, lse = flash_attention_varlen(q, k, v, starts, starts, 6, 6, pattern)
    alone = [
        F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in rows), is_causal=True, scale=0.5).transpose(0, 1)
        for rows in zip(*(x.split(lengths) for x in (q, k, v)), strict=True)
    ]
    torch.testing.assert_close(out, torch.cat(alone), rtol=1e-5, atol=1e-6)
    assert lse.shape == (4, 10)


def test_dropout_is_drawn_from_the_generator() -> None:
    """A pattern with dropout has another seed each time, and the same one from the same state; others draw nothing."""
    q = torch.ones(1, 2, 1, 4)
    torch.manual_seed(0)
    first, second = (pattern_of(q, dropout_p=0.1).seed for _ in range(2))
    torch.manual_seed(0)
    assert pattern_of(q, dropout_p=0.1).seed == first != second
    state = torch.get_rng_state()
    assert pattern_of(q).seed == 0 and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dropout_p", [-0.1, 1.0, 1.5, float("nan")])
def test_dropout_is_a_probability(dropout_p: float) -> None:
    """Below one, as flash-attn asks: a negative one would scale every weight."""
    with pytest.raises(ValueError, match="dropout_p"):
        pattern_of(torch.ones(1, 2, 1, 4), dropout_p=dropout_p)


@pytest.mark.parametrize(("name", "instead"), [("alibi_slopes", "attn_mask=bias"), ("block_table", "without pages")])
def test_what_has_no_counterpart_is_refused(name: str, instead: str) -> None:
    """By name, with what to do instead."""
    refuse(**{name: None})
    with pytest.raises(NotOnMac, match=rf"{name}(.|\n)*{instead}"):
        refuse(**{name: torch.ones(4)})
