"""The two halves of ``trl.kernels.chunked_divergence.ChunkedDivergenceFunction`` in plain torch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from patcher.ops.chunked_divergence import chunked_divergence, chunked_divergence_backward
from patcher.ops.logit_tiles import Head, LogitTransform
from patcher.replacements.trl.chunked_logprob import compute_dtype


def forward(
    ctx: Any,
    student_hidden: Tensor,
    student_weight: Tensor,
    student_bias: Tensor | None,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    teacher_bias: Tensor | None,
    beta: float,
    temperature: float = 1.0,
    student_logit_scale: float = 1.0,
    student_final_logit_softcapping: float | None = None,
    teacher_logit_scale: float = 1.0,
    teacher_final_logit_softcapping: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Per-token divergence, and the student's entropy without gradient."""
    ctx.set_materialize_grads(False)
    ctx.beta = beta
    ctx.transforms = (
        LogitTransform(student_logit_scale, student_final_logit_softcapping, temperature),
        LogitTransform(teacher_logit_scale, teacher_final_logit_softcapping, temperature),
    )
    ctx.dtypes = compute_dtype(student_hidden), compute_dtype(teacher_hidden)
    student = Head(student_hidden, student_weight, student_bias, ctx.transforms[0], ctx.dtypes[0])
    teacher = Head(teacher_hidden, teacher_weight, teacher_bias, ctx.transforms[1], ctx.dtypes[1])
    found = chunked_divergence(student, teacher, beta)
    ctx.save_for_backward(
        student_hidden,
        student_weight,
        student_bias,
        teacher_hidden,
        teacher_weight,
        teacher_bias,
        found.student_log_z,
        found.teacher_log_z,
        found.auxiliary,
    )
    ctx.mark_non_differentiable(found.entropy)
    return found.divergence, found.entropy


def backward(ctx: Any, grad_divergence: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    """Gradients of the student's hidden states, weight and bias; every tile of logits is computed again."""
    if grad_divergence is None:
        return (None,) * 12
    student_hidden, student_weight, student_bias, *others = ctx.saved_tensors
    teacher_hidden, teacher_weight, teacher_bias, student_log_z, teacher_log_z, auxiliary = others
    student = Head(student_hidden, student_weight, student_bias, ctx.transforms[0], ctx.dtypes[0])
    teacher = Head(teacher_hidden, teacher_weight, teacher_bias, ctx.transforms[1], ctx.dtypes[1])
    gradients = chunked_divergence_backward(
        grad_divergence,
        student,
        teacher,
        ctx.beta,
        student_log_z,
        teacher_log_z,
        auxiliary,
        ctx.needs_input_grad[:3],
    )
    return *gradients, *(None,) * 9
