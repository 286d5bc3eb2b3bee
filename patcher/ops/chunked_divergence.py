"""Divergence between a student's and a teacher's next-token distributions, without either ``[N, V]`` logits.

With ``log ps`` and ``log pt`` the log-softmax of the transformed projections, per row::

    beta = 0        KL(pt || ps) = sum_j pt_j (log pt_j - log ps_j)
    beta = 1        KL(ps || pt)
    0 < beta < 1    beta KL(pt || m) + (1 - beta) KL(ps || m),   m = (1 - beta) ps + beta pt

    entropy         = - sum_j ps_j log ps_j                      (of the student; carries no gradient)

    d / d zs_j      = ps_j - pt_j                                (beta = 0)
                    = ps_j (log ps_j - log pt_j - KL(ps || pt))  (beta = 1)
                    = (1 - beta) ps_j (log ps_j - log m_j - KL(ps || m))

Both projections and everything after them are fp32; the student's tile gradient is rounded to its compute dtype
before the two matmuls, whose sums run in fp32. The mixture is the generalized Jensen-Shannon divergence of
Agarwal et al., "On-Policy Distillation of Language Models" (2024).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from patcher.ops.logit_tiles import TOKENS, VOCABULARY, Gradients, Head, TileBuffer, spans
from patcher.ops.split_sum import addmm_fp32_


class Divergence(NamedTuple):
    """Per row, ``[N]`` fp32. ``auxiliary`` is what the backward needs besides the two normalizers."""

    divergence: Tensor
    entropy: Tensor
    student_log_z: Tensor
    teacher_log_z: Tensor
    auxiliary: Tensor


def _log_mixture(log_ps: Tensor, log_pt: Tensor, beta: float) -> Tensor:
    return torch.logaddexp(log_ps + math.log(1 - beta), log_pt + math.log(beta))


def _tiles(student: Head, teacher: Head, first: int, last: int) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """``(start, end, student's z, teacher's z)`` over the vocabulary for one block of rows."""
    device = student.hidden.device
    rows = student.rows(first, last), teacher.rows(first, last)
    buffer = TileBuffer(last - first, VOCABULARY, torch.float32, device)
    for start, end in spans(len(student.weight), VOCABULARY):
        zs = student.transform(student.logits(rows[0], start, end, buffer))
        zt = teacher.transform(teacher.logits(rows[1], start, end, buffer))
        yield start, end, zs, zt


class _Moments:
    """Online softmax of one model: its maximum, its sum, and sums weighted with it."""

    def __init__(self, like: Tensor) -> None:
        self.maximum = torch.full_like(like, float("-inf"))
        self.sum = torch.zeros_like(like)
        self.weighted = [torch.zeros_like(like), torch.zeros_like(like)]

    def fold(self, z: Tensor, *weights: Tensor) -> None:
        maximum = torch.maximum(self.maximum, z.amax(dim=1))
        rescale = torch.exp(self.maximum - maximum)
        exp = torch.exp(z - maximum[:, None])
        self.maximum = maximum
        self.sum = self.sum * rescale + exp.sum(dim=1)
        for i, weight in enumerate(weights):
            self.weighted[i] = self.weighted[i] * rescale + (exp * weight).sum(dim=1)

    def log_z(self) -> Tensor:
        return self.maximum + torch.log(self.sum)

    def mean(self, i: int) -> Tensor:
        return self.weighted[i] / self.sum


def _block(student: Head, teacher: Head, beta: float, first: int, last: int) -> Divergence:
    like = torch.zeros(last - first, dtype=torch.float32, device=student.hidden.device)
    s, t = _Moments(like), _Moments(like)
    for _, _, zs, zt in _tiles(student, teacher, first, last):
        gap = zt - zs
        s.fold(zs, zs, gap)
        t.fold(zt, gap)
    s_log_z, t_log_z = s.log_z(), t.log_z()
    if beta == 0.0:
        divergence = auxiliary = t.mean(0) - t_log_z + s_log_z
    elif beta == 1.0:
        divergence = auxiliary = t_log_z - s_log_z - s.mean(1)
    else:
        divergence, auxiliary = like, like
        for _, _, zs, zt in _tiles(student, teacher, first, last):
            log_ps, log_pt = zs - s_log_z[:, None], zt - t_log_z[:, None]
            log_m = _log_mixture(log_ps, log_pt, beta)
            kl_student = (torch.exp(log_ps) * (log_ps - log_m)).sum(dim=1)
            kl_teacher = (torch.exp(log_pt) * (log_pt - log_m)).sum(dim=1)
            divergence = divergence + beta * kl_teacher + (1 - beta) * kl_student
            auxiliary = auxiliary + kl_student
    return Divergence(divergence, s_log_z - s.mean(0), s_log_z, t_log_z, auxiliary)


@torch.no_grad()
def chunked_divergence(student: Head, teacher: Head, beta: float) -> Divergence:
    """The per-row quantities of the module's docstring; both heads share ``N`` and ``V``, not ``H``."""
    blocks = list(spans(len(student.hidden), TOKENS)) or [(0, 0)]
    results = [_block(student, teacher, beta, first, last) for first, last in blocks]
    return Divergence(*(torch.cat(column) for column in zip(*results, strict=True)))


@torch.no_grad()
def chunked_divergence_backward(
    grad_output: Tensor,
    student: Head,
    teacher: Head,
    beta: float,
    student_log_z: Tensor,
    teacher_log_z: Tensor,
    auxiliary: Tensor,
    output_mask: tuple[bool, bool, bool],
) -> Gradients:
    """The gradients of the student's hidden states, weight and bias.

    Args:
        grad_output: ``[N]``, the gradient of the divergence.
        student: as in the forward.
        teacher: as in the forward.
        beta: as in the forward.
        student_log_z: ``[N]``, of the forward.
        teacher_log_z: ``[N]``, of the forward.
        auxiliary: ``[N]``, of the forward.
        output_mask: which of the three are wanted.

    Returns:
        Each in its tensor's dtype, None where not wanted.
    """
    totals = grad_hidden, grad_weight, grad_bias = student.zero_gradients(output_mask)
    tokens, device = min(len(grad_output), TOKENS), student.hidden.device
    buffers = [TileBuffer(tokens, VOCABULARY, torch.float32, device) for _ in range(2)]
    for first, last in spans(len(student.hidden), TOKENS):
        row = slice(first, last)
        s_rows, t_rows = student.rows(first, last), teacher.rows(first, last)
        for start, end in spans(len(student.weight), VOCABULARY):
            zs, slope = student.transform.with_slope(student.logits(s_rows, start, end, buffers[0]))
            zt = teacher.transform(teacher.logits(t_rows, start, end, buffers[1]))
            log_ps, log_pt = (
                zs.sub_(student_log_z[row, None]),
                zt.sub_(teacher_log_z[row, None]),
            )
            tile = _logit_gradient(log_ps, log_pt, auxiliary[row, None], beta)
            tile = tile.mul_(grad_output[row, None].to(torch.float32)).mul_(slope)
            if grad_bias is not None:
                grad_bias[start:end] += tile.sum(dim=0)
            rounded = tile.to(student.compute_dtype)
            if grad_hidden is not None:
                addmm_fp32_(grad_hidden[row], rounded, student.columns(start, end))
            if grad_weight is not None:
                addmm_fp32_(grad_weight[start:end], rounded.t(), s_rows)
    return student.in_own_dtypes(totals)


def _logit_gradient(log_ps: Tensor, log_pt: Tensor, auxiliary: Tensor, beta: float) -> Tensor:
    """Gradient of the divergence with respect to the student's ``zs``, fp32 ``[n, w]``."""
    ps = torch.exp(log_ps)
    if beta == 0.0:
        return ps.sub_(torch.exp(log_pt))
    if beta == 1.0:
        return ps.mul_(log_ps - log_pt - auxiliary)
    return ps.mul_(log_ps - _log_mixture(log_ps, log_pt, beta) - auxiliary).mul_(1 - beta)
