"""``LoRA_MLP``: a gated unit, ``down(f(gate(X)) * up(X))``."""

from __future__ import annotations

from collections.abc import Callable
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
    gateW: Tensor,
    gateW_quant: Any,
    gateA: Tensor | None,
    gateB: Tensor | None,
    gateS: float | None,
    upW: Tensor,
    upW_quant: Any,
    upA: Tensor | None,
    upB: Tensor | None,
    upS: float | None,
    downW: Tensor,
    downW_quant: Any,
    downA: Tensor | None,
    downB: Tensor | None,
    downS: float | None,
    _forward_function: Callable[..., Tensor],
    _backward_function: Callable[..., tuple[Tensor, Tensor, Tensor]],
    inplace: bool = True,
    dropout_p: Any = None,
    gateBias: Tensor | None = None,
    upBias: Tensor | None = None,
    downBias: Tensor | None = None,
) -> Tensor:
    """The unit's output, of the shape of ``X``, ``[batch, length, width]``."""
    gate, up = Projection(gateW, gateW_quant, gateA, gateB, gateS), Projection(upW, upW_quant, upA, upB, upS)
    down, extras = Projection(downW, downW_quant, downA, downB, downS), (dropout_p, gateBias, upBias, downBias)
    if upstream().LoRA_MLP.backward is not backward or not are_plain(X, (gate, up, down), extras):
        found: Tensor = original(f"{MODULE}:LoRA_MLP.forward")(
            ctx, X, *gate, *up, *down, _forward_function, _backward_function, inplace, *given(*extras)
        )
        return found
    rows = X.view(-1, X.shape[-1])
    first, second = [gate.adapter, up.adapter], [down.adapter]
    buffer, ctx.layout = pack(first, X.dtype), Layout.of(first)
    e, g = gate.product(rows), up.product(rows)
    H = lora(rows, [e, g], buffer, ctx.layout)
    h = _forward_function(e.view(*X.shape[:-1], -1), g.view(*X.shape[:-1], -1)).view(e.shape)
    buffer_down, ctx.layout_down = pack(second, X.dtype), Layout.of(second)
    output = down.product(h)
    H_down = lora(h, [output], buffer_down, ctx.layout_down)
    ctx.save_for_backward(X, e, g, buffer, H, buffer_down, H_down)
    ctx.bases = [Base(one.weight, one.quant_state) for one in (gate, up, down)]
    ctx.of_adapters, ctx.inplace, ctx.function = gate.adapter.A.dtype, may_write(X, inplace), _backward_function
    return output.view(*X.shape[:-1], -1)


def backward(ctx: Any, dY: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of ``X`` and the six adapters; that of ``X`` may be written into ``X``."""
    if not hasattr(ctx, "layout"):
        found: tuple[Tensor | None, ...] = original(f"{MODULE}:LoRA_MLP.backward")(ctx, dY)
        return found
    X, e, g, buffer, H, buffer_down, H_down = ctx.saved_tensors
    rows, grads = X.view(-1, X.shape[-1]), [dY.reshape(-1, dY.shape[-1])]
    gate, up, down = ctx.bases
    G = lora_back(grads, buffer_down, ctx.layout_down)
    dh = down.back(grads[0])
    add_lora_grad_input(dh, G, buffer_down, ctx.layout_down)
    h, dg, de = ctx.function(dh, e, g)
    (of_down,) = lora_gradients(h, H_down, G, grads, ctx.layout_down, ctx.of_adapters)
    del h, dh
    grads = [de, dg]
    G = lora_back(grads, buffer, ctx.layout)
    of_gate, of_up = lora_gradients(rows, H, G, grads, ctx.layout, ctx.of_adapters)
    dX = up.back(dg, rows if ctx.inplace else None)
    gate.add_back(de, dX)
    add_lora_grad_input(dX, G, buffer, ctx.layout)
    none = (None, None, None)
    return dX.view(X.shape), *none[:2], *of_gate, *none, *of_up, *none, *of_down, *none, *none, None, None
