"""One projection: ``LoRA_W``."""

from __future__ import annotations

from patcher.changes.unsloth.fast_lora import half
from patcher.engine.model import AnyChange

CHANGES: tuple[AnyChange, ...] = (
    half(
        target="unsloth.kernels.fast_lora:LoRA_W.forward",
        replacement="patcher.replacements.unsloth.fast_lora.w:forward",
        expects="(ctx, X, W, W_quant, A, B, S, dropout_p=None, bias=None)",
        may_lack=("dropout_p", "bias"),
    ),
    half(
        target="unsloth.kernels.fast_lora:LoRA_W.backward",
        replacement="patcher.replacements.unsloth.fast_lora.w:backward",
        expects="(ctx, dY)",
    ),
)
