"""What transformers says when FlashAttention is asked for on a Mac."""

from __future__ import annotations

from typing import Any

from patcher.errors import NotOnMac, compose


def _flash_attn_import_error(
    self: Any,
    flash_attn_version: int,
    general_availability_check: Any,
    pkg_availability_check: Any,
    supported_devices: Any,
    custom_supported_devices: Any = (),
    cuda_min_major_version: int | None = None,
) -> None:
    """Raises NotOnMac: it is called only where FlashAttention has been asked for."""
    raise NotOnMac(
        compose(
            f'attn_implementation="flash_attention_{flash_attn_version}": FlashAttention does not run on a Mac',
            target=type(self).__name__,
            left="no model was loaded",
            run='leave attn_implementation out, or pass "sdpa" or "eager"',
        )
    )
