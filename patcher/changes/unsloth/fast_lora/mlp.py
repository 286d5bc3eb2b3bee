"""A gated unit: ``LoRA_MLP``."""

from __future__ import annotations

from patcher.changes.unsloth.fast_lora import half
from patcher.engine.model import AnyChange

CHANGES: tuple[AnyChange, ...] = (
    half(
        target="unsloth.kernels.fast_lora:LoRA_MLP.forward",
        replacement="patcher.replacements.unsloth.fast_lora.mlp:forward",
        expects=(
            "(ctx, X, gateW, gateW_quant, gateA, gateB, gateS, upW, upW_quant, upA, upB, upS, downW, downW_quant,"
            " downA, downB, downS, _forward_function, _backward_function, inplace=True, dropout_p=None,"
            " gateBias=None, upBias=None, downBias=None)"
        ),
        may_lack=("dropout_p", "gateBias", "upBias", "downBias"),
    ),
    half(
        target="unsloth.kernels.fast_lora:LoRA_MLP.backward",
        replacement="patcher.replacements.unsloth.fast_lora.mlp:backward",
        expects="(ctx, dY)",
    ),
)
