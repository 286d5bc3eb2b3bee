"""Functions from LLM training, compiled by Inductor for the simulated device and compared with eager CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BF16 = torch.bfloat16
HALF = torch.float16
FLOAT_TOLERANCE = 2e-5
"""Relative to the largest value: 2**-24 a step, some hundred steps in another order, exp and log of the C library."""
BF16_TOLERANCE = 2e-2
"""A few roundings to 8 bits (2**-8 each)."""
HALF_TOLERANCE = 3e-3
"""A few roundings to 11 bits (2**-11 each)."""


@dataclass(frozen=True)
class Case:
    """A function, what it is given, and which of its arguments get gradients."""

    name: str
    function: Callable[..., Tensor]
    arguments: Callable[[], tuple[Tensor, ...]]
    gradients: tuple[int, ...] = ()
    tolerance: float = FLOAT_TOLERANCE
    dynamic: bool = False


def worst(case: Case) -> float:
    """The largest error of the compiled function and its gradients, relative to the largest value of each."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    arguments = case.arguments()
    cpu = [_leaf(x, i in case.gradients) for i, x in enumerate(arguments)]
    mps = [_leaf(x.to("mps"), i in case.gradients) for i, x in enumerate(arguments)]
    expected = case.function(*cpu)
    found = torch.compile(case.function, dynamic=case.dynamic or None, fullgraph=True)(*mps)
    pairs = [(found, expected)]
    if case.gradients:
        cotangent = torch.randn(expected.shape).to(expected.dtype)
        expected.backward(cotangent)
        found.backward(cotangent.to("mps"))
        pairs += [(mps[i].grad, cpu[i].grad) for i in case.gradients]
    return max(_error(found, expected) for found, expected in pairs)


def _leaf(x: Tensor, gradient: bool) -> Tensor:
    return x.detach().clone().requires_grad_(gradient)


def _error(found: Tensor, expected: Tensor) -> float:
    assert (found.device.type, found.dtype, found.shape) == ("mps", expected.dtype, expected.shape)
    a, b = found.detach().cpu().double(), expected.detach().double()
    assert torch.equal(a.isnan(), b.isnan())
    a, b = a.nan_to_num(), b.nan_to_num()
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-6))


def normal(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Callable[[], tuple[Tensor, ...]]:
    """Arguments: a normal tensor of each shape."""
    return lambda: tuple(torch.randn(shape).to(dtype) for shape in shapes)


def labels(rows: int, vocabulary: int) -> Tensor:
    """Targets, about a third of them ignored."""
    return torch.where(torch.rand(rows) < 0.3, -100, torch.randint(0, vocabulary, (rows,)))


# ---- the functions -----------------------------------------------------------------------------------------------


def rms_norm(x: Tensor, w: Tensor) -> Tensor:
    wide = x.float()
    return w * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


def gemma_rms_norm(x: Tensor, w: Tensor) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + w.float())).to(x.dtype)


def residual_rms_norm(x: Tensor, residual: Tensor, w: Tensor) -> Tensor:
    return rms_norm(x + residual, w) + residual


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


def interleaved_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


def swiglu_mlp(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return (F.silu(x @ gate) * (x @ up)) @ down


def lora_linear(x: Tensor, w: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return F.linear(x, w) + (x @ a) @ b * 2.0


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    mask = torch.triu(torch.full((q.shape[-2], k.shape[-2]), float("-inf"), device=q.device), 1)
    return torch.softmax(scores + mask, -1).to(v.dtype) @ v


def soft_capped_scores(scores: Tensor) -> Tensor:
    return torch.softmax(50.0 * torch.tanh(scores / 50.0), -1)


def z_loss_cross_entropy(x: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(x, target) + 1e-4 * torch.logsumexp(x, -1).pow(2).mean()


def log_prob_of(x: Tensor, target: Tensor) -> Tensor:
    return torch.log_softmax(x, -1).gather(-1, target[:, None]).squeeze(-1)


def entropy(x: Tensor) -> Tensor:
    p = torch.log_softmax(x, -1)
    return -(p.exp() * p).sum(-1)


def dpo_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    return -F.logsigmoid(0.1 * (chosen - rejected)).mean()


def grpo_loss(new: Tensor, old: Tensor, advantage: Tensor) -> Tensor:
    ratio = (new - old).exp()
    return -torch.minimum(ratio * advantage[:, None], ratio.clamp(0.8, 1.2) * advantage[:, None]).mean()


def adamw(p: Tensor, g: Tensor, m: Tensor, v: Tensor) -> Tensor:
    return p * 0.999 - 1e-3 * (m * 0.9 + g * 0.1) / ((v.abs() * 0.99 + g * g * 0.01).sqrt() + 1e-8)


def moe_gate(x: Tensor, w: Tensor) -> Tensor:
    weights = torch.softmax(x @ w, -1)
    top = weights.topk(2, -1).values
    return top / top.sum(-1, keepdim=True)


def elementary(x: Tensor) -> Tensor:
    a = x.abs()
    return torch.erf(x) + torch.log1p(a) + torch.expm1(x) + torch.tanh(x) + torch.atan2(x, a + 1) + torch.floor(x)


def special(x: Tensor) -> Tensor:
    return torch.special.i0(x) + torch.digamma(x.abs() + 1) + torch.lgamma(x.abs() + 0.1) + torch.erfc(x)


def integers(x: Tensor, y: Tensor) -> Tensor:
    return x // y + x % y + (x << 1) + torch.where(x > y, x, y) + x.clamp(2, 9)


def statistics(x: Tensor) -> Tensor:
    return torch.var(x, -1) + x.amax(-1) + x.amin(-1) + x[:, :20].prod(-1)


def quantize_blockwise(x: Tensor) -> Tensor:
    blocks = x.view(-1, 64)
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    return ((blocks / scale).round().clamp(-127, 127) * scale).view_as(x)


def repeated_kv_scores(q: Tensor, k: Tensor) -> Tensor:
    groups = q.shape[1] // k.shape[1]
    return q @ k[:, :, None].expand(-1, -1, groups, -1, -1).flatten(1, 2).transpose(-1, -2)


def sliding_window_softmax(scores: Tensor) -> Tensor:
    i = torch.arange(scores.shape[-1], device=scores.device)
    distance = i[:, None] - i[None, :]
    return torch.softmax(scores.masked_fill((distance < 0) | (distance >= 8), float("-inf")), -1)


def alibi_softmax(scores: Tensor) -> Tensor:
    i = torch.arange(scores.shape[-1], device=scores.device)
    slopes = 2.0 ** -torch.arange(1, scores.shape[0] + 1, device=scores.device, dtype=torch.float32)
    return torch.softmax(scores - slopes[:, None, None] * (i[:, None] - i[None, :]).abs(), -1)


def qk_norm_rope(q: Tensor, w: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return rope(rms_norm(q, w), cos, sin)


def smoothed_cross_entropy(x: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(x, target, label_smoothing=0.1)


def masked_mean_loss(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask).sum() / mask.sum().clamp_min(1)


def kto_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    baseline = (chosen.mean() + rejected.mean()).clamp(min=0).detach()
    return torch.cat([1 - torch.sigmoid(chosen - baseline), 1 - torch.sigmoid(baseline - rejected)]).mean()


def orpo_odds(chosen: Tensor, rejected: Tensor) -> Tensor:
    odds = (chosen - rejected) - (torch.log1p(-chosen.exp()) - torch.log1p(-rejected.exp()))
    return -F.logsigmoid(odds).mean()


def nf4_dequantize(codes: Tensor, table: Tensor, scale: Tensor) -> Tensor:
    high, low = codes >> 4, codes & 15
    values = table[torch.stack([high, low], -1).flatten(-2).long()]
    return (values.view(-1, 64) * scale[:, None]).flatten()


CASES = (
    Case("rms_norm", rms_norm, normal((64, 512), (512,)), (0, 1)),
    Case("rms_norm_bf16", rms_norm, normal((64, 512), (512,), dtype=BF16), (0, 1), BF16_TOLERANCE),
    Case("rms_norm_half", rms_norm, normal((16, 512), (512,), dtype=HALF), (), HALF_TOLERANCE),
    Case("rms_norm_long", rms_norm, normal((4, 2560), (2560,)), (0, 1)),
    Case("rms_norm_dynamic", rms_norm, normal((7, 130), (130,)), (0, 1), dynamic=True),
    Case("gemma_rms_norm", gemma_rms_norm, normal((16, 256), (256,), dtype=BF16), (0, 1), BF16_TOLERANCE),
    Case("residual_rms_norm", residual_rms_norm, normal((16, 256), (16, 256), (256,)), (0, 1, 2)),
    Case("layer_norm", lambda x, w, b: F.layer_norm(x, w.shape, w, b), normal((32, 384), (384,), (384,)), (0, 1, 2)),
    Case(
        "layer_norm_half",
        lambda x, w, b: F.layer_norm(x, w.shape, w, b),
        normal((32, 384), (384,), (384,), dtype=HALF),
        tolerance=HALF_TOLERANCE,
    ),
    Case(
        "group_norm",
        lambda x, w, b: F.group_norm(x, 4, w, b),
        normal((2, 16, 8, 8), (16,), (16,)),
        (0, 1, 2),
    ),
    Case("softmax", lambda x: torch.softmax(x, -1), normal((32, 300)), (0,)),
    Case("softmax_long", lambda x: torch.softmax(x, -1), normal((4, 5000)), (0,)),
    Case("softmax_dynamic", lambda x: torch.softmax(x, -1), normal((5, 77)), (0,), dynamic=True),
    Case("log_softmax_bf16", lambda x: torch.log_softmax(x, -1), normal((8, 300), dtype=BF16), (0,), BF16_TOLERANCE),
    Case("soft_capped_scores", soft_capped_scores, normal((8, 100)), (0,)),
    Case("cross_entropy", F.cross_entropy, lambda: (torch.randn(16, 3000), torch.randint(0, 3000, (16,))), (0,)),
    Case(
        "cross_entropy_ignored_bf16",
        lambda x, t: F.cross_entropy(x.float(), t),
        lambda: (torch.randn(16, 500).to(BF16), labels(16, 500)),
        (0,),
        BF16_TOLERANCE,
    ),
    Case("cross_entropy_dynamic", F.cross_entropy, lambda: (torch.randn(9, 333), labels(9, 333)), (0,), dynamic=True),
    Case("z_loss_cross_entropy", z_loss_cross_entropy, lambda: (torch.randn(9, 400), labels(9, 400)), (0,)),
    Case("log_prob_of", log_prob_of, lambda: (torch.randn(9, 400), torch.randint(0, 400, (9,))), (0,)),
    Case("entropy", entropy, normal((9, 400)), (0,)),
    Case("kl_div", lambda p, q: F.kl_div(F.log_softmax(p, -1), F.softmax(q, -1)), normal((9, 90), (9, 90)), (0, 1)),
    Case("dpo_loss", dpo_loss, normal((8,), (8,)), (0, 1)),
    Case("grpo_loss", grpo_loss, normal((4, 30), (4, 30), (4,)), (0,)),
    Case("swiglu", swiglu, normal((32, 352), (32, 352)), (0, 1)),
    Case("swiglu_bf16", swiglu, normal((32, 352), (32, 352), dtype=BF16), (0, 1), BF16_TOLERANCE),
    Case("swiglu_mlp", swiglu_mlp, normal((16, 64), (64, 128), (64, 128), (128, 64)), (0, 1, 2, 3)),
    Case("geglu", lambda g, u: F.gelu(g, approximate="tanh") * u, normal((9, 77), (9, 77)), (0, 1)),
    Case("gelu", lambda x: F.gelu(x) + F.gelu(x, approximate="tanh"), normal((33, 77)), (0,)),
    Case("lora_linear", lora_linear, normal((8, 64), (96, 64), (64, 8), (8, 96)), (0, 2, 3)),
    Case("rope", rope, normal((2, 4, 16, 64), (16, 64), (16, 64)), (0,)),
    Case("rope_bf16", rope, normal((2, 4, 16, 64), (16, 64), (16, 64), dtype=BF16), (0,), BF16_TOLERANCE),
    Case("interleaved_rope", interleaved_rope, normal((2, 16, 64), (16, 32), (16, 32)), (0,)),
    Case("attention", attention, normal((2, 3, 33, 32), (2, 3, 33, 32), (2, 3, 33, 32)), (0, 1, 2)),
    Case("embedding", lambda i, w: w[i] * 2, lambda: (torch.randint(0, 50, (40,)), torch.randn(50, 64)), (1,)),
    Case(
        "embedding_bf16",
        lambda i, w: F.embedding(i, w) * 2,
        lambda: (torch.randint(0, 50, (40,)), torch.randn(50, 64).to(BF16)),
        (1,),
        BF16_TOLERANCE,
    ),
    Case(
        "index_add",
        lambda x, i, s: x.index_add(0, i, s),
        lambda: (torch.zeros(20, 8), torch.randint(0, 20, (100,)), torch.randn(100, 8)),
    ),
    Case("moe_gate", moe_gate, normal((12, 32), (32, 8)), (0, 1)),
    Case("adamw", adamw, normal((1000,), (1000,), (1000,), (1000,))),
    Case("quantize_blockwise", quantize_blockwise, normal((8, 128))),
    Case("clip_grad_norm", lambda g: g * (1.0 / (g.norm() + 1e-6)).clamp(max=1.0), normal((40, 50)), (0,)),
    Case("statistics", statistics, normal((17, 300))),
    Case("logsumexp", lambda x: torch.logsumexp(x, -1) - x.amax(-1) + x.amin(0).sum(), normal((65, 333)), (0,)),
    Case("argmax", lambda x: x.argmax(-1) - x.argmin(-1), normal((17, 2000))),
    Case("long_sum", lambda x: x.sum(-1) + x.amax(-1), lambda: (torch.randint(0, 100, (17, 300)),)),
    Case("cumsum", lambda x: x.cumsum(-1).mul(2), normal((7, 50)), (0,)),
    Case("elementary", elementary, normal((1000,)), (0,), 1e-4),
    Case("special", special, normal((1000,)), (), 1e-4),
    Case(
        "integers",
        integers,
        lambda: (torch.randint(-50, 50, (100,), dtype=torch.int32), torch.randint(1, 9, (100,), dtype=torch.int32)),
    ),
    Case("bytes", lambda x: x.float() / 255 - 0.5, lambda: (torch.randint(0, 255, (100,), dtype=torch.uint8),)),
    Case(
        "half_to_bf16",
        lambda x: (x * 2).to(BF16) + x.sum(-1, keepdim=True).to(BF16),
        normal((9, 64), dtype=HALF),
        (),
        BF16_TOLERANCE,
    ),
    Case(
        "mixed_halves",
        lambda x, y: x + y.to(BF16),
        lambda: (torch.randn(64).half(), torch.randn(64).to(BF16)),
        (),
        BF16_TOLERANCE,
    ),
    Case("transposed", lambda x, y: (x.transpose(0, 1) + y).contiguous(), normal((30, 40), (40, 30)), (0, 1)),
    Case("pointwise_dynamic", lambda x, y: torch.sin(x) * y + x, normal((5, 9), (5, 9)), (0, 1), dynamic=True),
    Case("rms_norm_half_gradients", rms_norm, normal((16, 256), (256,), dtype=HALF), (0, 1), 1e-2),
    Case("layer_norm_dynamic", lambda x, w: F.layer_norm(x, w.shape, w), normal((6, 90), (90,)), (0, 1), dynamic=True),
    Case("relu_squared", lambda x: F.relu(x).square(), normal((9, 77)), (0,)),
    Case("repeated_kv_scores", repeated_kv_scores, normal((2, 4, 9, 16), (2, 2, 9, 16)), (0, 1)),
    Case("sliding_window_softmax", sliding_window_softmax, normal((2, 33, 33)), (0,)),
    Case("alibi_softmax", alibi_softmax, normal((4, 17, 17)), (0,)),
    Case(
        "attention_bf16", attention, normal((1, 2, 16, 32), (1, 2, 16, 32), (1, 2, 16, 32), dtype=BF16), (0, 1, 2), 5e-2
    ),
    Case("qk_norm_rope", qk_norm_rope, normal((2, 4, 9, 32), (32,), (9, 32), (9, 32)), (0, 1)),
    Case("rope_dynamic", rope, normal((2, 3, 11, 32), (11, 32), (11, 32)), (0,), dynamic=True),
    Case("swiglu_dynamic", swiglu, normal((5, 70), (5, 70)), (0, 1), dynamic=True),
    Case("smoothed_cross_entropy", smoothed_cross_entropy, lambda: (torch.randn(9, 400), labels(9, 400)), (0,)),
    Case("masked_mean_loss", masked_mean_loss, lambda: (torch.randn(9, 40), (torch.rand(9, 40) > 0.5).float()), (0,)),
    Case("kto_loss", kto_loss, normal((7,), (7,)), (0, 1)),
    Case("orpo_odds", orpo_odds, lambda: (-torch.rand(7) - 0.1, -torch.rand(7) - 0.1), (0, 1)),
    Case(
        "nf4_dequantize",
        nf4_dequantize,
        lambda: (torch.randint(0, 256, (128,), dtype=torch.uint8), torch.linspace(-1, 1, 16), torch.rand(4)),
    ),
    Case("cosine_similarity", lambda x, y: F.cosine_similarity(x, y, -1), normal((9, 70), (9, 70)), (0, 1)),
    Case("mean_pool", lambda x: F.normalize(x.mean(1), dim=-1), normal((3, 11, 40)), (0,)),
    Case("huber_loss", F.huber_loss, normal((9, 30), (9, 30)), (0,)),
    Case(
        "causal_shift",
        lambda x, t: F.cross_entropy(x[:, :-1].flatten(0, 1), t[:, 1:].flatten()),
        lambda: (torch.randn(2, 9, 60), torch.randint(0, 60, (2, 9))),
        (0,),
    ),
    Case("lion", lambda p, g, m: p - 1e-2 * torch.sign(m * 0.9 + g * 0.1), normal((500,), (500,), (500,))),
)
