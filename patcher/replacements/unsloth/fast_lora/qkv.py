"""``LoRA_QKV``: query, key and value of one input."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from patcher.engine.ledger import original
from patcher.ops.lora import Layout, add_lora_grad_input, lora, lora_back, lora_gradients, pack
from patcher.replacements.unsloth.fast_lora import (
    MODULE,
    Base,
    Projection,
    are_plain,
    given,
    may_write,
    upstream,
)


def forward(
    ctx: Any,
    X: Tensor,
    QW: Tensor,
    QW_quant: Any,
    QA: Tensor | None,
    QB: Tensor | None,
    QS: float | None,
    KW: Tensor,
    KW_quant: Any,
    KA: Tensor | None,
    KB: Tensor | None,
    KS: float | None,
    VW: Tensor,
    VW_quant: Any,
    VA: Tensor | None,
    VB: Tensor | None,
    VS: float | None,
    inplace: bool = True,
    dropout_p: Any = None,
    QBias: Tensor | None = None,
    KBias: Tensor | None = None,
    VBias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, ``[batch, length, out]`` each, of ``X``, ``[batch, length, in]``."""
    query = Projection(QW, QW_quant, QA, QB, QS)
    key, value = Projection(KW, KW_quant, KA, KB, KS), Projection(VW, VW_quant, VA, VB, VS)
    three, extras = (query, key, value), (dropout_p, QBias, KBias, VBias)
    if upstream().LoRA_QKV.backward is not backward or not are_plain(X, three, extras):
        found: tuple[Tensor, Tensor, Tensor] = original(f"{MODULE}:LoRA_QKV.forward")(
            ctx, X, *query, *key, *value, inplace, *given(*extras)
        )
        return found
    rows = X.view(-1, X.shape[-1])
    outputs = [one.product(rows) for one in three]
    adapters = [one.adapter for one in three]
    buffer, ctx.layout = pack(adapters, X.dtype), Layout.of(adapters)
    ctx.save_for_backward(X, buffer, lora(rows, outputs, buffer, ctx.layout))
    ctx.bases, ctx.of_adapters = [Base(one.weight, one.quant_state) for one in three], adapters[0].A.dtype
    ctx.inplace = may_write(X, inplace)
    Q, K, V = (output.view(*X.shape[:-1], -1) for output in outputs)
    return Q, K, V


def backward(ctx: Any, dQ: Tensor, dK: Tensor, dV: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of ``X`` and the six adapters; that of ``X`` may be written into ``X``."""
    if not hasattr(ctx, "layout"):
        found: tuple[Tensor | None, ...] = original(f"{MODULE}:LoRA_QKV.backward")(ctx, dQ, dK, dV)
        return found
    X, buffer, H = ctx.saved_tensors
    rows, grads = X.view(-1, X.shape[-1]), [grad.reshape(-1, grad.shape[-1]) for grad in (dQ, dK, dV)]
    G = lora_back(grads, buffer, ctx.layout)
    of_query, of_key, of_value = lora_gradients(rows, H, G, grads, ctx.layout, ctx.of_adapters)
    query, key, value = ctx.bases
    dX = query.back(grads[0], rows if ctx.inplace else None)
    key.add_back(grads[1], dX)
    value.add_back(grads[2], dX)
    add_lora_grad_input(dX, G, buffer, ctx.layout)
    none = (None, None, None)
    return dX.view(X.shape), *none[:2], *of_query, *none, *of_key, *none, *of_value, *none, *none
