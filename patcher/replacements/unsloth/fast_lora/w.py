"""``LoRA_W``: one projection, as that of attention's output."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from patcher.engine.ledger import original
from patcher.ops.lora import Layout, add_lora_grad_input, lora, lora_back, lora_gradients, pack
from patcher.replacements.unsloth.fast_lora import MODULE, Base, Projection, are_plain, given, upstream


def forward(
    ctx: Any,
    X: Tensor,
    W: Tensor,
    W_quant: Any,
    A: Tensor | None,
    B: Tensor | None,
    S: float | None,
    dropout_p: Any = None,
    bias: Tensor | None = None,
) -> Tensor:
    """The projection, ``[batch, length, out]``, of ``X``, ``[batch, length, in]``."""
    one = Projection(W, W_quant, A, B, S)
    if upstream().LoRA_W.backward is not backward or not are_plain(X, [one], (dropout_p, bias)):
        found: Tensor = original(f"{MODULE}:LoRA_W.forward")(ctx, X, *one, *given(dropout_p, bias))
        return found
    rows = X.reshape(-1, X.shape[-1])
    output = one.product(rows)
    buffer, ctx.layout = pack([one.adapter], X.dtype), Layout.of([one.adapter])
    ctx.save_for_backward(X, buffer, lora(rows, [output], buffer, ctx.layout))
    ctx.base, ctx.of_adapters = Base(W, W_quant), one.adapter.A.dtype
    return output.view(*X.shape[:-1], -1)


def backward(ctx: Any, dY: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of ``X`` and the adapter."""
    if not hasattr(ctx, "layout"):
        found: tuple[Tensor | None, ...] = original(f"{MODULE}:LoRA_W.backward")(ctx, dY)
        return found
    X, buffer, H = ctx.saved_tensors
    rows, grads = X.reshape(-1, X.shape[-1]), [dY.reshape(-1, dY.shape[-1])]
    G = lora_back(grads, buffer, ctx.layout)
    ((dA, dB),) = lora_gradients(rows, H, G, grads, ctx.layout, ctx.of_adapters)
    dX = ctx.base.back(grads[0])
    add_lora_grad_input(dX, G, buffer, ctx.layout)
    return dX.view(X.shape), None, None, dA, dB, None, None, None
