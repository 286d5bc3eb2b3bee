"""A large weight is quantized in pieces."""

from __future__ import annotations

import pytest
import torch

from patcher.replacements.bitsandbytes import mps as bitsandbytes_mps


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
