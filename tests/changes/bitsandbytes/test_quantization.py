"""Where a quantized model goes, when Unsloth may quantize, and where bitsandbytes' operators are not compiled."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from patcher.changes.bitsandbytes.ops import CHANGES
from patcher.macs.machine import Machine
from patcher.replacements.bitsandbytes import mps as bitsandbytes_mps
from patcher.replacements.bitsandbytes import ops as bitsandbytes_ops
from patcher.replacements.transformers.quantizers import update_device_map
from patcher.replacements.unsloth.bnb_availability import native_kernels_ready
from tests.machines import M3_MAX


def test_a_quantized_model_without_device_map_goes_to_mps() -> None:
    """Only where the caller said nothing: every other device_map stays what it is."""
    assert update_device_map(None, None) == {"": "mps"}
    for given in ("auto", {"": "cpu"}, {}):
        assert update_device_map(None, given) is given


@pytest.mark.parametrize(("bnb", "ready"), [(SimpleNamespace(mps_ops=object()), True), (SimpleNamespace(), False)])
def test_unsloth_quantizes_where_bitsandbytes_has_mps_operators(bnb: object, ready: bool) -> None:
    """A release without them, the stand-in, or no bitsandbytes at all: False, and the loaders refuse."""
    assert native_kernels_ready(bnb, "mps") is ready
    assert native_kernels_ready(None, "mps") is False


@pytest.mark.parametrize(
    ("machine", "compiled"),
    [(M3_MAX, True), (replace(M3_MAX, torch="2.12.1"), False), (replace(M3_MAX, simulated=True), False)],
)
def test_operators_are_compiled_where_the_compiler_can_be_trusted(machine: Machine, compiled: bool) -> None:
    """Inductor is wrong on mps before torch 2.13, and slow on the simulated Mac."""
    for change in CHANGES:
        assert change.skip is not None
        assert (change.skip(machine) is not None) is compiled


def test_the_compilers_wrapper_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each replacement passes its arguments in order to the function within the wrapper."""
    calls = []

    def wrapper(*args: object) -> None:
        raise AssertionError("compiled")

    wrapper.__wrapped__ = lambda *args: calls.append(args) or "result"  # type: ignore[attr-defined]
    monkeypatch.setattr(bitsandbytes_ops, "original", lambda target: wrapper)
    one = torch.zeros(1)
    assert bitsandbytes_ops._dequantize_blockwise_compute(one, one, one, 256, torch.half) == "result"
    assert bitsandbytes_ops._dequantize_4bit_compute(one, one, one, 64, (1,), torch.half) == "result"
    assert bitsandbytes_ops._quantize_blockwise_compute(one, one, 256) == "result"
    assert bitsandbytes_ops._quantize_4bit_compute(one, 64, one, one, True) == "result"
    tails = [args[3:] for args in calls]
    assert tails[:3] == [(256, torch.half), (64, (1,), torch.half), ()]
    assert tails[3][1] is True


@pytest.mark.parametrize("storage", [torch.uint8, torch.bfloat16])
def test_a_large_weight_is_quantized_in_pieces(monkeypatch: pytest.MonkeyPatch, storage: torch.dtype) -> None:
    """Codes and scales of the pieces follow each other, the last piece is shorter, the storage is what was asked."""
    lengths = []

    def quantize(piece: torch.Tensor, blocksize: int, kind: str, stored: torch.dtype) -> tuple[torch.Tensor, ...]:
        lengths.append(piece.numel())
        packed = piece[::2].to(torch.uint8).unsqueeze(1)
        return packed if stored == torch.uint8 else packed.squeeze().view(stored).unsqueeze(1), piece[::blocksize]

    monkeypatch.setattr(bitsandbytes_mps, "PIECE", 64)
    monkeypatch.setattr(bitsandbytes_mps, "original", lambda target: quantize)
    weight = torch.arange(160.0)
    packed, scales = bitsandbytes_mps._quantize_4bit_fallback(weight.view(10, 16), 8, "nf4", storage)
    assert lengths == [64, 64, 32]
    expected = quantize(weight, 8, "nf4", storage)
    assert packed.dtype == storage and packed.shape == expected[0].shape
    assert torch.equal(packed.view(torch.uint8), expected[0].view(torch.uint8)) and torch.equal(scales, expected[1])
