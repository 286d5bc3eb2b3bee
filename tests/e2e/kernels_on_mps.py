"""Runs Unsloth's and TRL's own functions, patched, on the simulated Mac and on the CPU, and compares them.

    python -m tests.e2e.kernels_on_mps

Prints one JSON object: the relative distance between the two devices for every output and gradient.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from patcher import patch_for_mac

HANDLE = patch_for_mac(simulate="M3 Max 36GB")

import torch
import trl.trainer.utils as trl_utils
import unsloth  # noqa: F401
from bitsandbytes.functional import quantize_4bit
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction
from unsloth.kernels import fast_lora, flex_attention
from unsloth.kernels import utils as kernel_utils
from unsloth.kernels.moe.grouped_gemm.interface import grouped_gemm

from tests.oracle.cases import lora_blocks

Tensors = list[Any]
DTYPE = torch.bfloat16


def seeded(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def lora_mlp(device: str) -> Tensors:
    block = lora_blocks.with_lora(lora_blocks.MLP(32, 48, torch.nn.SiLU()), DTYPE, torch.float32).to(device)
    X = seeded(2, 7, 32).to(device, DTYPE).requires_grad_()
    with torch.autocast(device, dtype=DTYPE):
        Y = fast_lora.apply_lora_mlp_swiglu(block, X * 1)
    assert type(Y.grad_fn).__name__ == "LoRA_MLPBackward", "the fused function was not taken"
    Y.sum().backward()
    return [Y, X.grad, *lora_blocks.gradients(block).values()]


def lora_attention(device: str) -> Tensors:
    block = lora_blocks.with_lora(lora_blocks.Attention(32, 16), DTYPE, torch.float32).to(device)
    X = seeded(2, 7, 32).to(device, DTYPE).requires_grad_()
    Q, K, V = fast_lora.apply_lora_qkv(block, X * 1)
    O = fast_lora.apply_lora_o(block, Q)
    assert type(O.grad_fn).__name__ == "LoRA_WBackward", "the fused function was not taken"
    torch.cat((O, K, V), -1).sum().backward()
    with torch.no_grad():
        decoded = kernel_utils.fast_linear_forward(block.q_proj, X[:1, :1])
    return [O, X.grad, decoded, *lora_blocks.gradients(block).values()]


def four_bit(device: str) -> Tensors:
    packed, state = quantize_4bit(seeded(64, 64).to(device, DTYPE), quant_type="nf4", compress_statistics=True)
    x = seeded(1, 1, 64).to(device, DTYPE)
    row = kernel_utils.fast_gemv(x, packed, state)
    with torch.autocast(device, dtype=torch.float16):
        assert torch.equal(kernel_utils.fast_gemv(x, packed, state), row), "autocast reached into a native kernel"
    return [kernel_utils.fast_dequantize(packed.t(), state), row]


def softcapped(device: str) -> Tensors:
    q, k = seeded(1, 4, 5, 8).to(device, DTYPE).requires_grad_(), seeded(1, 2, 5, 8).to(device, DTYPE)
    mask = torch.full((5, 5), torch.finfo(DTYPE).min, dtype=DTYPE, device=device).triu(1)
    config = SimpleNamespace(
        query_pre_attn_scalar=8, attn_logit_softcapping=5.0, num_attention_heads=4, num_key_value_heads=2
    )
    module = SimpleNamespace(config=config, head_dim=8, num_key_value_groups=2)
    out = flex_attention.slow_attention_softcapping(q, k, k, mask, module, 1, 5)
    out.sum().backward()
    return [out, q.grad]


def experts(device: str) -> Tensors:
    X, W = (seeded(*shape).to(device).requires_grad_() for shape in ((3, 8), (3, 16, 8)))
    sizes, slots = torch.tensor([2, 0, 4]).to(device), torch.tensor([0, 3, 1, 2, 4, 5]).to(device)
    tiles = SimpleNamespace(
        BLOCK_SIZE_M=16, BLOCK_SIZE_N=16, BLOCK_SIZE_K=16, num_warps=4, num_stages=2,
        use_tma_load_x=False, use_tma_load_w=False, use_tma_load_dy=False, use_tma_store=False,
    )  # fmt: skip
    for _ in range(2):  # the second time W has a gradient, into which upstream accumulates in place
        Y = grouped_gemm(
            X, W, sizes, 2, slots, True, False,
            kernel_config_fwd=tiles, kernel_config_bwd_dX=tiles, kernel_config_bwd_dW=tiles,
        )  # fmt: skip
        Y.sum().backward()
    return [Y, X.grad, W.grad]


def trl_log_prob(device: str) -> Tensors:
    hidden, weight = (seeded(*shape).to(device, DTYPE).requires_grad_() for shape in ((6, 16), (50, 16)))
    targets = torch.arange(6).to(device)
    found = trl_utils._ChunkedLogProbFunction.apply(hidden, weight, None, targets, 0.9, 32768, 5.0, 1.0, ("entropy",))
    (found[0].sum() + found[1].sum()).backward()
    logits = seeded(2, 3, 50).to(device, DTYPE)
    selected = trl_utils.selective_log_softmax(logits, torch.zeros(2, 3, dtype=torch.int64).to(device))
    assert device == "cpu" or selected.dtype == torch.float32, "the fp32 computation was not taken"
    return [found[0], found[1], hidden.grad, weight.grad]


def trl_divergence(device: str) -> Tensors:
    hidden, weight = (seeded(*shape).to(device, DTYPE).requires_grad_() for shape in ((6, 16), (50, 16)))
    teacher = seeded(6, 24).to(device, DTYPE), seeded(50, 24).to(device, DTYPE), None
    found = ChunkedDivergenceFunction.apply(hidden, weight, None, *teacher, 0.4)
    found[0].sum().backward()
    return [found[0], found[1], hidden.grad, weight.grad]


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    difference = found.detach().cpu().double() - expected.detach().double()
    return (difference.norm() / expected.detach().double().norm()).item()


if __name__ == "__main__":
    CASES = (
        lora_mlp, lora_attention, four_bit, softcapped, experts, trl_log_prob, trl_divergence,
    )  # fmt: skip
    print(
        json.dumps(
            {case.__name__: [distance(a, b) for a, b in zip(case("mps"), case("cpu"), strict=True)] for case in CASES}
        )
    )
