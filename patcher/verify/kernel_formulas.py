"""The ops' formulas in plain torch, for autograd in fp64. Inputs by name, outputs in order."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

Tensors = dict[str, Tensor]
EPS = 1e-5
TEMPERATURE = 0.7
SOFTCAP = 5.0
WINDOW = 6
BETA = 0.3
SCALES = (2.0, 0.5)


def _rms(x: Tensor, w: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * w


def rms(t: Tensors, unit_offset: bool = False) -> list[Tensor]:
    return [_rms(t["x"], t["w"] + 1 if unit_offset else t["w"])]


def add_rms(t: Tensors) -> list[Tensor]:
    total = t["x"] + t["residual"]
    return [_rms(total, t["w"]), total]


def layer(t: Tensors) -> list[Tensor]:
    return [functional.layer_norm(t["x"], t["w"].shape, t["w"], t["b"], EPS)]


def _rotated(x: Tensor, t: Tensors) -> Tensor:
    """``x`` is ``[batch, heads, tokens, head]``."""
    half = x.shape[-1] // 2
    positions = t.get("positions", torch.arange(x.shape[2])[None])
    c, s = t["cos"][positions][:, None], t["sin"][positions][:, None]
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * c - second * s, second * c + first * s], -1)


def rope(t: Tensors) -> list[Tensor]:
    return [_rotated(t["x"], t)]


def qk_norm_rope(t: Tensors) -> list[Tensor]:
    return [_rotated(_rms(t["x"], t["w"]).transpose(1, 2), t).transpose(1, 2)]


def swiglu(t: Tensors) -> list[Tensor]:
    return [functional.silu(t["e"]) * t["g"]]


def geglu(t: Tensors) -> list[Tensor]:
    return [functional.gelu(t["e"]) * t["g"]]


def geglu_tanh(t: Tensors) -> list[Tensor]:
    return [functional.gelu(t["e"], approximate="tanh") * t["g"]]


def cross_entropy(t: Tensors, softcap: float = 0, scale: float = 0) -> list[Tensor]:
    z = t["logits"] * scale if scale else t["logits"]
    z = softcap * torch.tanh(z / softcap) if softcap else z
    return [functional.cross_entropy(z, t["labels"], reduction="none")]


def _log_prob_entropy(z: Tensor, index: Tensor) -> list[Tensor]:
    log_p = z.log_softmax(-1)
    return [log_p.gather(1, index[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)]


def log_prob_entropy(t: Tensors) -> list[Tensor]:
    return _log_prob_entropy(t["logits"] / TEMPERATURE, t["index"])


def head_log_prob(t: Tensors) -> list[Tensor]:
    return _log_prob_entropy((t["hidden"] @ t["weight"].T + t["bias"]) / TEMPERATURE, t["index"])


def head_loss(t: Tensors) -> list[Tensor]:
    """Losses of rows of which -100 marks those that do not count."""
    losses = functional.cross_entropy(t["hidden"] @ t["weight"].T, t["labels"], reduction="none")
    return [losses]


def lora(t: Tensors) -> list[Tensor]:
    """Two projections, whose adapters differ in rank, width and scale."""
    return [t["x"] @ t[f"A{i}"].T @ t[f"B{i}"].T * scale for i, scale in enumerate(SCALES)]


def chunked_divergence(t: Tensors) -> list[Tensor]:
    log_ps = ((t["hidden"] @ t["weight"].T + t["bias"]) / TEMPERATURE).log_softmax(-1)
    log_pt = (t["teacher"] @ t["teacher_weight"].T).log_softmax(-1)
    log_m = ((1 - BETA) * log_ps.exp() + BETA * log_pt.exp()).log()
    from_teacher = (log_pt.exp() * (log_pt - log_m)).sum(-1)
    from_student = (log_ps.exp() * (log_ps - log_m)).sum(-1)
    return [BETA * from_teacher + (1 - BETA) * from_student]


def attention(t: Tensors) -> list[Tensor]:
    groups = t["q"].shape[1] // t["k"].shape[1]
    k, v = (t[name].repeat_interleave(groups, 1) for name in ("k", "v"))
    length = k.shape[2]
    scores = SOFTCAP * torch.tanh(t["q"] @ k.transpose(-1, -2) * k.shape[-1] ** -0.5 / SOFTCAP)
    hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
    return [scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v]


def packed_attention(t: Tensors) -> list[Tensor]:
    groups = t["q"].shape[1] // t["k"].shape[1]
    q, k, v = (t[name].transpose(0, 1) for name in ("q", "k", "v"))
    k, v = (x.repeat_interleave(groups, 0) for x in (k, v))
    at, ends = torch.arange(len(t["q"])), t["starts"][1:]
    row, distance = torch.searchsorted(ends, at, right=True), at[:, None] - at
    hidden = (row[:, None] != row) | (distance < 0) | (distance > WINDOW)
    scores = (q @ k.transpose(-1, -2) * k.shape[-1] ** -0.5).masked_fill(hidden, float("-inf"))
    sinks = t["sinks"][:, None, None].expand(-1, len(at), 1)
    return [(torch.cat([scores, sinks], -1).softmax(-1)[..., :-1] @ v).transpose(0, 1)]


def grouped_mm(t: Tensors) -> list[Tensor]:
    parts = torch.split(t["x"], t["sizes"].tolist())
    return [torch.cat([part @ weight.T for part, weight in zip(parts, t["w"], strict=True)])]
