"""Small MLP and attention blocks with PEFT's LoRA in them, for upstream's fused functions and for a reference."""

from __future__ import annotations

import torch
from torch import nn


class MLP(nn.Module):
    def __init__(self, width, inner, activation):
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)
        self.act_fn = activation

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class Attention(nn.Module):
    def __init__(self, width, narrow):
        super().__init__()
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, narrow, bias=False)
        self.v_proj = nn.Linear(width, narrow, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)


ACTIVATIONS = {
    "swiglu": nn.SiLU(),
    "geglu_exact": nn.GELU(),
    "geglu_approx": nn.GELU(approximate="tanh"),
}


def with_lora(block, dtype, adapter_dtype, rank=4):
    """``block`` with seeded base weights in ``dtype`` and seeded, non-zero adapters on every projection."""
    from peft import LoraConfig, inject_adapter_in_model

    names = [name for name, _ in block.named_children() if name.endswith("_proj")]
    block = inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=6, target_modules=names), block)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
            parameter.data = parameter.data.to(adapter_dtype if "lora_" in name else dtype)
            parameter.requires_grad_("lora_" in name)
    return block


def quantize_bases(block):
    """Packs every base weight as bitsandbytes NF4 with double quantization."""
    from bitsandbytes.functional import quantize_4bit

    for module in block.modules():
        base = getattr(module, "base_layer", None)
        if base is not None:
            packed, state = quantize_4bit(base.weight.data, quant_type="nf4", compress_statistics=True)
            base.weight = nn.Parameter(packed, requires_grad=False)
            base.weight.quant_state = state
    return block


def gradients(block):
    return {name: p.grad for name, p in block.named_parameters() if p.grad is not None}
