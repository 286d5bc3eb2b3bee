"""4-bit quantization on mps within a bounded amount of memory."""

from __future__ import annotations

import torch
from torch import Tensor

from patcher.engine.ledger import original

PIECE = 2**21
"""Values that are quantized at once: a multiple of every block size. They take 48 MiB on the way."""


def _quantize_4bit_fallback(
    A: Tensor, blocksize: int, quant_type: str, quant_storage: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Codes, packed and of ``quant_storage``, ``[n, 1]``, and the largest magnitude of each block.

    Blocks are independent, so the pieces' codes are those of the whole.
    """
    quantize = original("bitsandbytes.backends.mps.ops:_quantize_4bit_fallback")
    if A.numel() <= PIECE:
        whole: tuple[Tensor, Tensor] = quantize(A, blocksize, quant_type, quant_storage)
        return whole
    pieces = [quantize(piece, blocksize, quant_type, torch.uint8) for piece in torch.split(A.reshape(-1), PIECE)]
    packed = torch.cat([codes for codes, _ in pieces])
    if quant_storage != torch.uint8:
        packed = packed.squeeze().view(quant_storage).unsqueeze(1)
    return packed, torch.cat([absmax for _, absmax in pieces])
