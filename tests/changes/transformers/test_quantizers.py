"""Where a quantized model goes."""

from __future__ import annotations

from patcher.replacements.transformers.quantizers import update_device_map


def test_a_quantized_model_without_device_map_goes_to_mps() -> None:
    """Only where the caller said nothing: every other device_map stays what it is."""
    assert update_device_map(None, None) == {"": "mps"}
    for given in ("auto", {"": "cpu"}, {}):
        assert update_device_map(None, given) is given
