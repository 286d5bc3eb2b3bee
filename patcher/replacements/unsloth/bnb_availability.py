"""Whether bitsandbytes can quantize on mps: what ALLOW_BITSANDBYTES and ALLOW_PREQUANTIZED_MODELS come from."""

from __future__ import annotations

from typing import Any


def native_kernels_ready(bnb: Any, device_type: str) -> bool:
    """True for a real bitsandbytes that has loaded its mps operators; False for its stand-in, and without it.

    ``kernels/utils.py`` then takes native symbols by name, which every bitsandbytes that has mps operators hands out
    without looking for them; the two functions that would call them are replaced.
    """
    return getattr(bnb, "mps_ops", None) is not None
