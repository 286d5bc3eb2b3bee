"""Rows without their padding, and back: differentiable lookups of tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def index_first_axis(input: Tensor, indices: Tensor) -> Tensor:
    """``input[indices]``."""
    return input[indices]


def index_put_first_axis(values: Tensor, indices: Tensor, first_axis_dim: int) -> Tensor:
    """Zeros ``[first_axis_dim, ...]`` with ``values`` at ``indices``."""
    return values.new_zeros(first_axis_dim, *values.shape[1:]).index_put((indices,), values)


def unpad_input(
    hidden_states: Tensor, attention_mask: Tensor, unused_mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, int, Tensor]:
    """Tokens ``[T, ...]`` that are not padding, and where they are.

    Args:
        hidden_states: ``[B, L, ...]``.
        attention_mask: ``[B, L]``, 1 or True for a token.
        unused_mask: ``[B, L]``, likewise for tokens that are kept and do not count.

    Returns:
        The tokens, their indices among ``B L``, the cumulative lengths (int32 ``[B + 1]``), the longest length, and how
        many tokens of each row count. Waits for the device.
    """
    kept = attention_mask if unused_mask is None else attention_mask + unused_mask
    lengths = kept.sum(-1, dtype=torch.int32)
    indices = kept.flatten().nonzero().flatten()
    starts = pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    counting = attention_mask.sum(-1, dtype=torch.int32)
    return hidden_states.flatten(0, 1)[indices], indices, starts, int(lengths.max()), counting


def pad_input(hidden_states: Tensor, indices: Tensor, batch: int, seqlen: int) -> Tensor:
    """Tokens ``[T, ...]`` at their places in ``[batch, seqlen, ...]``, zeros elsewhere."""
    return index_put_first_axis(hidden_states, indices, batch * seqlen).unflatten(0, (batch, seqlen))
