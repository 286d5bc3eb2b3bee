"""Query, key and value: ``LoRA_QKV``."""

from __future__ import annotations

from patcher.changes.unsloth.fast_lora import half
from patcher.engine.model import AnyChange

CHANGES: tuple[AnyChange, ...] = (
    half(
        target="unsloth.kernels.fast_lora:LoRA_QKV.forward",
        replacement="patcher.replacements.unsloth.fast_lora.qkv:forward",
        expects=(
            "(ctx, X, QW, QW_quant, QA, QB, QS, KW, KW_quant, KA, KB, KS, VW, VW_quant, VA, VB, VS,"
            " inplace=True, dropout_p=None, QBias=None, KBias=None, VBias=None)"
        ),
        may_lack=("dropout_p", "QBias", "KBias", "VBias"),
    ),
    half(
        target="unsloth.kernels.fast_lora:LoRA_QKV.backward",
        replacement="patcher.replacements.unsloth.fast_lora.qkv:backward",
        expects="(ctx, dQ, dK, dV)",
    ),
)
