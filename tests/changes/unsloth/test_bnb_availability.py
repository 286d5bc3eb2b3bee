"""When Unsloth may quantize."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from patcher.replacements.unsloth.bnb_availability import native_kernels_ready


@pytest.mark.parametrize(("bnb", "ready"), [(SimpleNamespace(mps_ops=object()), True), (SimpleNamespace(), False)])
def test_unsloth_quantizes_where_bitsandbytes_has_mps_operators(bnb: object, ready: bool) -> None:
    """A release without them, the stand-in, or no bitsandbytes at all: False, and the loaders refuse."""
    assert native_kernels_ready(bnb, "mps") is ready
    assert native_kernels_ready(None, "mps") is False
