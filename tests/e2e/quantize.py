"""Quantizes on the simulated Mac or on the CPU and writes every tensor. Run by the tests:

python -m tests.e2e.quantize mps|cpu OUT.safetensors
"""

from __future__ import annotations

import sys

DEVICE = sys.argv[1]
if DEVICE == "mps":
    from patcher import patch_for_mac

    patch_for_mac(simulate="M3 Max 36GB")

import torch
from bitsandbytes import functional
from peft.utils.loftq_utils import loftq_init
from safetensors.torch import save_file

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = ((256, 128), (33, 77), (1024, 1024))


def quantized(weight: torch.Tensor, kind: str, nested: bool) -> dict[str, torch.Tensor]:
    """Codes, statistics and dequantized values of one weight."""
    codes, state = functional.quantize_4bit(weight, quant_type=kind, compress_statistics=nested)
    found = {"codes": codes, "absmax": state.absmax, "values": functional.dequantize_4bit(codes, state)}
    if nested:
        found |= {"offset": state.offset, "nested_absmax": state.state2.absmax, "nested_code": state.state2.code}
        plain = functional.quantize_4bit(weight, quant_type=kind, compress_statistics=False)[1]
        found["statistics"] = plain.absmax - state.offset
    return found


def row_wise(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """LLM.int8's codes and row statistics."""
    codes, statistics, _ = functional.int8_vectorwise_quant(weight.half())
    return {"codes": codes, "statistics": statistics}


def loftq() -> dict[str, torch.Tensor]:
    """The weight, and the base and the product of the adapters with which LoftQ starts; its factors are free in sign.

    It is what ``init_lora_weights="loftq"`` calls for each layer (and PEFT asks for scipy first).
    """
    dense = torch.randn(48, 64, generator=torch.Generator().manual_seed(0)) * 0.05
    base, a, b = loftq_init(dense.to(DEVICE), num_bits=4, reduced_rank=8, num_iter=1)
    return {"dense": dense, "base": base, "product": b @ a}


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    found: dict[str, torch.Tensor] = {}
    for dtype in DTYPES:
        for shape in SHAPES:
            weight = (torch.randn(shape, generator=generator) * 0.05).to(dtype).to(DEVICE)
            name = f"{str(dtype).removeprefix('torch.')}-{shape[0]}"
            for kind in ("nf4", "fp4"):
                for nested in (False, True):
                    for part, value in quantized(weight, kind, nested).items():
                        found[f"{kind}-{'nested' if nested else 'plain'}-{name}/{part}"] = value
            found |= {f"int8-{name}/{part}": value for part, value in row_wise(weight).items()}
    if DEVICE == "mps":  # PEFT computes it on "cuda" only, which the patches turn into mps
        found |= {f"loftq/{part}": value for part, value in loftq().items()}
    save_file({name: value.cpu().contiguous().clone() for name, value in found.items()}, sys.argv[2])


if __name__ == "__main__":
    main()
