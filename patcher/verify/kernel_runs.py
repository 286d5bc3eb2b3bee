"""The ops' forwards and backwards as the replacements call them. Inputs by name, output gradients by number."""

from __future__ import annotations

import torch
from torch import Tensor

from patcher.ops import swiglu as silu_ops
from patcher.ops.attention import Pattern, attention_varlen
from patcher.ops.attention import attention as attention_op
from patcher.ops.chunked_divergence import chunked_divergence as divergence_op
from patcher.ops.chunked_divergence import chunked_divergence_backward
from patcher.ops.cross_entropy import cross_entropy as cross_entropy_op
from patcher.ops.cross_entropy import cross_entropy_backward
from patcher.ops.cross_entropy_rows import Terms, cross_entropy_rows, cross_entropy_rows_backward
from patcher.ops.gated_linear_unit import Activation, ActivationAndSlope, gated, gated_backward, gated_backward_
from patcher.ops.geglu import gelu, gelu_and_slope, gelu_tanh, gelu_tanh_and_slope
from patcher.ops.grouped_mm import grouped_mm as grouped_mm_op
from patcher.ops.grouped_mm import grouped_mm_weight_
from patcher.ops.layer_norm import layer_norm, layer_norm_backward
from patcher.ops.linear_cross_entropy import linear_cross_entropy
from patcher.ops.log_prob_entropy import log_prob_entropy as log_prob_entropy_op
from patcher.ops.log_prob_entropy import log_prob_entropy_backward
from patcher.ops.logit_tiles import Head, LogitTransform
from patcher.ops.lora import Adapter, Layout, add_lora_grad_input, lora_back, lora_gradients, pack
from patcher.ops.lora import lora as lora_op
from patcher.ops.qk_norm_rope import qk_norm_rope as qk_norm_rope_op
from patcher.ops.qk_norm_rope import qk_norm_rope_backward
from patcher.ops.rms_norm import add_rms_norm_, rms_norm, rms_norm_backward
from patcher.ops.rope import rope_
from patcher.verify.kernel_formulas import BETA, EPS, SCALES, SOFTCAP, TEMPERATURE, WINDOW

Tensors = dict[str, Tensor]


def _some(*tensors: Tensor | None) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor is not None]


def rms(t: Tensors, grads: Tensors, unit_offset: bool = False) -> list[Tensor]:
    y, rstd = rms_norm(t["x"], t["w"], EPS, unit_offset=unit_offset)
    dx = torch.empty_like(t["x"])
    dw = rms_norm_backward(
        grads["0"], t["x"], t["w"], rstd, grad_input=dx, unit_offset=unit_offset, needs_grad_weight=True
    )
    return _some(y, dx, dw)


def add_rms(t: Tensors, grads: Tensors) -> list[Tensor]:
    y = add_rms_norm_(t["x"], t["residual"], t["w"], EPS)
    return [y, t["residual"]]


def layer(t: Tensors, grads: Tensors) -> list[Tensor]:
    y, mean, rstd = layer_norm(t["x"], t["w"], t["b"], EPS)
    return _some(y, *layer_norm_backward(grads["0"], t["x"], t["w"], mean, rstd, (True, True, True)))


def rope(t: Tensors, grads: Tensors) -> list[Tensor]:
    outputs = []
    for x, transpose in ((t["x"], False), (grads["0"], True)):
        out = torch.empty_like(x)
        rope_(x, t["cos"], t["sin"], out=out, positions=t.get("positions"), transpose=transpose)
        outputs.append(out)
    return outputs


def qk_norm_rope(t: Tensors, grads: Tensors) -> list[Tensor]:
    y, rstd = qk_norm_rope_op(t["x"], t["w"], t["cos"], t["sin"], EPS)
    return [y, qk_norm_rope_backward(grads["0"], t["x"], t["w"], rstd, t["cos"], t["sin"])]


def _gated(t: Tensors, grads: Tensors, activation: Activation, slope: ActivationAndSlope) -> list[Tensor]:
    _, dg, de = gated_backward(grads["0"], t["e"], t["g"], slope)
    return [gated(t["e"], t["g"], activation), de, dg]


def swiglu(t: Tensors, grads: Tensors) -> list[Tensor]:
    return _gated(t, grads, silu_ops.silu, silu_ops.silu_and_slope)


def geglu(t: Tensors, grads: Tensors) -> list[Tensor]:
    return _gated(t, grads, gelu, gelu_and_slope)


def geglu_tanh(t: Tensors, grads: Tensors) -> list[Tensor]:
    return _gated(t, grads, gelu_tanh, gelu_tanh_and_slope)


def swiglu_in_place(t: Tensors, grads: Tensors) -> list[Tensor]:
    h, dg, de = gated_backward_(grads["0"], t["e"], t["g"], silu_ops.silu_and_slope)
    return [h, de, dg]


def cross_entropy(t: Tensors, grads: Tensors, softcap: float = 0, scale: float = 0) -> list[Tensor]:
    losses, log_z = cross_entropy_op(t["logits"], t["labels"], softcap, scale)
    return [losses, cross_entropy_backward(grads["0"], t["logits"], t["labels"], losses, log_z, softcap, scale)]


def log_prob_entropy(t: Tensors, grads: Tensors) -> list[Tensor]:
    made = log_prob_entropy_op(t["logits"], t["index"], TEMPERATURE)
    dx = log_prob_entropy_backward(
        grads["0"], grads["1"], t["logits"], t["index"], made.log_z, made.expected_logit, TEMPERATURE
    )
    return [made.log_probs, made.entropy, dx]


def head_log_prob(t: Tensors, grads: Tensors) -> list[Tensor]:
    transform, dtype = LogitTransform(temperature=TEMPERATURE), t["hidden"].dtype
    head = Head(t["hidden"], t["weight"], t["bias"], transform, dtype)
    made = cross_entropy_rows(head, t["index"], wanted=("entropy",))
    gradients = cross_entropy_rows_backward(
        -grads["0"], head, t["index"], None, made, Terms(), (True, True, True), grad_entropy=grads["1"]
    )
    return _some(-made.nll, made.entropy, *gradients)


def head_loss(t: Tensors, grads: Tensors) -> list[Tensor]:
    """With a head that is not trained, so that the forward makes the gradient."""
    hidden = t["hidden"].detach().requires_grad_()
    losses = linear_cross_entropy(hidden, t["weight"], t["labels"], reduction="none")
    return [losses.detach(), *torch.autograd.grad(losses, hidden, grads["0"].to(losses.dtype))]


def lora(t: Tensors, grads: Tensors) -> list[Tensor]:
    adapters = [Adapter(t[f"A{i}"], t[f"B{i}"], scale) for i, scale in enumerate(SCALES)]
    layout, packed = Layout.of(adapters), pack(adapters, t["x"].dtype)
    outputs = [t["x"].new_zeros(len(t["x"]), len(adapter.B)) for adapter in adapters]
    H = lora_op(t["x"], outputs, packed, layout)
    flowing = [grads[str(i)] for i in range(len(adapters))]
    G, dx = lora_back(flowing, packed, layout), torch.zeros_like(t["x"])
    add_lora_grad_input(dx, G, packed, layout)
    pairs = lora_gradients(t["x"], H, G, flowing, layout, t["x"].dtype)
    return [*outputs, dx, *(gradient for pair in pairs for gradient in pair)]


def chunked_divergence(t: Tensors, grads: Tensors) -> list[Tensor]:
    dtype = t["hidden"].dtype
    student = Head(t["hidden"], t["weight"], t["bias"], LogitTransform(temperature=TEMPERATURE), dtype)
    teacher = Head(t["teacher"], t["teacher_weight"], None, LogitTransform(), dtype)
    made = divergence_op(student, teacher, BETA)
    gradients = chunked_divergence_backward(
        grads["0"],
        student,
        teacher,
        BETA,
        made.student_log_z,
        made.teacher_log_z,
        made.auxiliary,
        (True, True, True),
    )
    return _some(made.divergence, *gradients)


def attention(t: Tensors, grads: Tensors) -> list[Tensor]:
    q, k, v = (t[name].detach().requires_grad_() for name in ("q", "k", "v"))
    out = attention_op(q, k, v, Pattern(q.shape[-1] ** -0.5, causal=True, softcap=SOFTCAP))
    return [out.detach(), *torch.autograd.grad(out, (q, k, v), grads["0"])]


def packed_attention(t: Tensors, grads: Tensors) -> list[Tensor]:
    q, k, v, sinks = leaves = [t[name].detach().requires_grad_() for name in ("q", "k", "v", "sinks")]
    starts, pattern = t["starts"], Pattern(q.shape[-1] ** -0.5, causal=True, window=(WINDOW, None))
    out = attention_varlen(q, k, v, starts, starts, len(q), len(q), pattern, sinks=sinks)
    return [out.detach(), *torch.autograd.grad(out, leaves, grads["0"])]


def grouped_mm(t: Tensors, grads: Tensors) -> list[Tensor]:
    x, w, sizes = t["x"], t["w"], t["sizes"]
    dx = grouped_mm_op(grads["0"], w, sizes, transpose=False)
    return [grouped_mm_op(x, w, sizes), dx, grouped_mm_weight_(torch.zeros_like(w), x, grads["0"], sizes)]
