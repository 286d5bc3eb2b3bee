"""Attention with the arguments of flash-attn 2, by `patcher.ops.attention`.

Rows are ``[B, L, H, D]``, the last query stands at the last key, and -1 stands for a window without end. Unlike
flash-attn it takes fp32, any size of head, and values that are narrower than keys.
"""

from __future__ import annotations

from torch import Tensor

from patcher.errors import NotOnMac, compose
from patcher.ops.attention import Pattern, attention_forward, attention_varlen_forward
from patcher.ops.drawn_seed import drawn_seed

INSTEAD = {
    "alibi_slopes": "add the bias yourself: torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)",
    "block_table": "pass keys and values as they are, without pages",
}
"""What to do without an argument."""


def pattern_of(
    query: Tensor,
    *,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float | None = None,
) -> Pattern:
    """The pattern that flash-attn's arguments describe; dropout draws its seed from the device's generator.

    Args:
        query: ``[..., D]``; without ``softmax_scale`` the scale is ``D ** -0.5``.
        dropout_p: how likely a weight is dropped.
        softmax_scale: factor of the dot products.
        causal: whether a query sees nothing after its own key.
        window_size: keys to the left and right that are seen; -1 (or less) for all.
        softcap: bound of the scores; 0 or None for none.

    Raises:
        ValueError: ``dropout_p`` is not in [0, 1), as in flash-attn.
    """
    if not 0 <= dropout_p < 1:
        raise ValueError(f"attention: dropout_p is in [0, 1), not {dropout_p}")
    left, right = (None if side is None or side < 0 else int(side) for side in window_size)
    return Pattern(
        scale=query.shape[-1] ** -0.5 if softmax_scale is None else float(softmax_scale),
        causal=causal,
        window=(left, right),
        softcap=softcap or None,
        dropout_p=dropout_p,
        seed=drawn_seed(query.device) if dropout_p else 0,
    )


def flash_attention(query: Tensor, key: Tensor, value: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
    """Output ``[B, L, H, Dv]`` and the log of the sum of exponentials, fp32 ``[B, H, L]``.

    ``query`` is ``[B, L, H, D]``, ``key`` ``[B, S, Hkv, D]``, ``value`` ``[B, S, Hkv, Dv]``.
    """
    out, lse = attention_forward(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), pattern)
    return out.transpose(1, 2), lse


def flash_attention_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts_query: Tensor,
    starts_key: Tensor,
    longest_query: int,
    longest_key: int,
    pattern: Pattern,
) -> tuple[Tensor, Tensor]:
    """`flash_attention` of packed rows ``[T, H, D]`` with their cumulative lengths; logs are ``[H, T]``."""
    lengths = starts_query, starts_key, int(longest_query), int(longest_key)
    return attention_varlen_forward(query, key, value, *lengths, pattern)


def refuse(**asked: Tensor | None) -> None:
    """Raises NotOnMac where one of these arguments of flash-attn, which have no counterpart here, is given."""
    for name, value in asked.items():
        if value is not None:
            raise NotOnMac(
                compose(
                    f"flash_attn with {name} does not run on a Mac",
                    found=f"{name} of shape {tuple(value.shape)}",
                    left="nothing was computed",
                    run=INSTEAD[name],
                )
            )
