"""Stands in for flash-attn where it is not installed: attention of `patcher.ops.attention` under its names.

Signatures and meaning are those of flash-attn 2: the last query stands at the last key, windows of -1 have no end.
Beyond them fp32 is taken, on every device. ``alibi_slopes`` and ``block_table`` raise `patcher.errors.NotOnMac`. The
real library is never shadowed.
"""

from __future__ import annotations

__version__ = "2.8.3+patcher"

from flash_attn.flash_attn_interface import (
    flash_attn_func,
    flash_attn_kvpacked_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    flash_attn_varlen_kvpacked_func,
    flash_attn_varlen_qkvpacked_func,
)

__all__ = [
    "flash_attn_func",
    "flash_attn_kvpacked_func",
    "flash_attn_qkvpacked_func",
    "flash_attn_varlen_func",
    "flash_attn_varlen_kvpacked_func",
    "flash_attn_varlen_qkvpacked_func",
]
