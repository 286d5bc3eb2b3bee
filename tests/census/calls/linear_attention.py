"""The vendored flash-linear-attention: gated delta rule, KDA, GLA, and what they are made of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from fla.modules import fused_norm_gate, l2norm
from fla.modules.conv.triton import kernels as convolution_kernels
from fla.modules.conv.triton import ops as convolution
from fla.ops.common import chunk_o, fused_recurrent, gate
from fla.ops.cp import chunk_delta_h as parallel
from fla.ops.gated_delta_rule import chunk as delta_rule
from fla.ops.gated_delta_rule import fused_recurrent as delta_recurrent
from fla.ops.gated_delta_rule import gate as delta_gate
from fla.ops.gla import chunk as gla
from fla.ops.kda import chunk as kda
from fla.ops.kda import fused_recurrent as kda_recurrent
from fla.ops.kda import gate as kda_gate
from fla.ops.kda import wy_fast as kda_wy
from fla.ops.simple_gla import chunk as simple_gla
from fla.ops.utils import cumsum, index, logsumexp, pack, pooling, softmax
from fla.ops.utils.matmul import addmm, matmul
from fla.ops.utils.solve_tril import solve_tril

from tests.census.registry import call
from tests.tiles.registry import Make

B, T, H, K, V = 1, 70, 2, 32, 16
TOKENS = (B, T, H)
SCALE = K**-0.5


def _heads(make: Make, width: int, dtype: torch.dtype, trained: bool = True) -> torch.Tensor:
    return make.floats(*TOKENS, width, dtype=dtype, scale=0.5).requires_grad_(trained)


def _decay(make: Make, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (-make.positive(*shape) / 16).to(dtype).requires_grad_()


def _ends(*lengths: int) -> torch.Tensor:
    return torch.tensor((0, *lengths)).cumsum(0)


def _backward(make: Make, outputs: Any) -> None:
    outputs = [output for output in outputs if isinstance(output, torch.Tensor)]
    torch.autograd.backward(outputs, [make.floats(*o.shape, dtype=o.dtype) for o in outputs])


@call(terms=256, narrow=True)
def gated_delta_rule(make: Make, dtype: torch.dtype) -> None:
    """With a state before and after; sequences packed, gates and sigmoids within kernels, the state transposed."""
    for options in (
        {"initial_state": make.floats(B, H, K, V).requires_grad_(), "output_final_state": True},
        {
            "cu_seqlens": _ends(30, 40),
            "use_qk_l2norm_in_kernel": True,
            "use_beta_sigmoid_in_kernel": True,
            "use_gate_in_kernel": True,
            "A_log": make.floats(H).requires_grad_(),
            "dt_bias": make.floats(H).requires_grad_(),
            "state_v_first": True,
        },
    ):
        q, k, v = (_heads(make, width, dtype) for width in (K, K, V))
        beta = make.floats(*TOKENS, dtype=dtype).sigmoid().requires_grad_()
        _backward(make, delta_rule.chunk_gated_delta_rule(q, k, v, _decay(make, *TOKENS), beta, **options))


@call(terms=256, narrow=True)
def gated_delta_rule_token_by_token(make: Make, dtype: torch.dtype) -> None:
    """Decoding, which has no backward."""
    q, k, v = (_heads(make, width, dtype, trained=False) for width in (K, K, V))
    for options in ({}, {"gk": _decay(make, *TOKENS, K).detach()}):
        delta_recurrent.fused_recurrent_gated_delta_rule(
            q,
            k,
            v,
            g=_decay(make, *TOKENS).detach(),
            beta=make.floats(*TOKENS, dtype=dtype).sigmoid(),
            initial_state=make.floats(B, H, K, V),
            output_final_state=True,
            use_qk_l2norm_in_kernel=True,
            **options,
        )


@call(terms=256, narrow=True)
def kimi_delta_attention(make: Make, dtype: torch.dtype) -> None:
    """With plain gates, with gates within kernels, and with bounded ones."""
    for options in (
        {"initial_state": make.floats(B, H, K, V).requires_grad_(), "output_final_state": True},
        {
            "use_gate_in_kernel": True,
            "A_log": make.floats(H).requires_grad_(),
            "dt_bias": make.floats(H * K).requires_grad_(),
            "use_qk_l2norm_in_kernel": True,
            "cu_seqlens": _ends(30, 40),
        },
        {
            "use_gate_in_kernel": True,
            "safe_gate": True,
            "lower_bound": -5.0,
            "A_log": make.floats(H).requires_grad_(),
            "use_qk_l2norm_in_kernel": True,
            "disable_recompute": True,
        },
    ):
        q, k, v = (_heads(make, width, dtype) for width in (K, K, V))
        g = _decay(make, *TOKENS, K, dtype=dtype)
        beta = make.floats(*TOKENS, dtype=dtype).sigmoid().requires_grad_()
        _backward(make, kda.chunk_kda(q, k, v, g, beta, **options))


@call(terms=256, narrow=True)
def kimi_delta_attention_in_parts(make: Make, dtype: torch.dtype) -> None:
    """A gradient that ``chunk_kda`` has fused with others."""
    k, dk, dw, dg = (_heads(make, K, dtype, trained=False) for _ in range(4))
    v, du = (_heads(make, V, dtype, trained=False) for _ in range(2))
    gk, A = _decay(make, *TOKENS, K).detach(), _heads(make, 64, dtype, trained=False)
    beta = make.floats(*TOKENS, dtype=dtype).sigmoid()
    kda_wy.prepare_wy_repr_bwd(k, v, beta, gk, A, dk.float(), dw, du, dg.float())


@call(terms=256, narrow=True)
def kimi_delta_attention_token_by_token(make: Make, dtype: torch.dtype) -> None:
    """Decoding."""
    q, k, v = (_heads(make, width, dtype, trained=False) for width in (K, K, V))
    for options in (
        {},
        {"use_gate_in_kernel": True, "A_log": make.floats(H), "dt_bias": make.floats(H * K)},
    ):
        kda_recurrent.fused_recurrent_kda(
            q,
            k,
            v,
            _decay(make, *TOKENS, K).detach(),
            make.floats(*TOKENS, dtype=dtype).sigmoid(),
            initial_state=make.floats(B, H, K, V),
            output_final_state=True,
            use_qk_l2norm_in_kernel=True,
            **options,
        )


@call(terms=256, narrow=True)
def gated_linear_attention(make: Make, dtype: torch.dtype) -> None:
    """In chunks; heads wider than a block; packed."""
    for width, options in ((K, {"output_final_state": True}), (272, {}), (K, {"cu_seqlens": _ends(30, 40)})):
        q, k = _heads(make, width, dtype), _heads(make, width, dtype)
        g = _decay(make, *TOKENS, width)
        _backward(make, gla.chunk_gla(q, k, _heads(make, V, dtype), g, **options))


@call(terms=256, narrow=True)
def simple_gated_linear_attention(make: Make, dtype: torch.dtype) -> None:
    """A gate for a head, learned and fixed."""
    for gates in ({"g": _decay(make, *TOKENS)}, {"g_gamma": _decay(make, H).detach()}):
        q, k, v = (_heads(make, width, dtype) for width in (K, K, V))
        _backward(make, simple_gla.chunk_simple_gla(q, k, v, **gates))
    h = make.floats(B, 2, H, K, V, dtype=dtype)
    do = _heads(make, V, dtype, trained=False)
    chunk_o.chunk_bwd_dv(q.detach(), k.detach(), do, h, g=_decay(make, *TOKENS).detach())


@call(terms=256, narrow=True)
def recurrence(make: Make, dtype: torch.dtype) -> None:
    """Every kind of gate, forwards and backwards."""
    for reverse in (False, True):
        q, k, v = (_heads(make, width, dtype) for width in (K, K, V))
        _backward(
            make,
            fused_recurrent.fused_recurrent(
                q,
                k,
                v,
                g=_decay(make, *TOKENS),
                gk=_decay(make, *TOKENS, K),
                gv=_decay(make, *TOKENS, V),
                scale=SCALE,
                initial_state=make.floats(B, H, K, V).requires_grad_(),
                output_final_state=True,
                reverse=reverse,
            ),
        )


@call(terms=256, narrow=True)
def split_over_devices(make: Make, dtype: torch.dtype) -> None:
    """What the second of two devices computes of a sequence that both have."""
    parallel.all_gather_into_tensor = lambda x, group: (torch.stack([x, x]), None)
    parallel.dist = SimpleNamespace(get_rank=lambda group: 1)
    context = SimpleNamespace(group=0, is_first_rank=False, is_last_rank=False, pre_num_ranks=1, post_num_ranks=0)
    q, k, w = (_heads(make, K, dtype, trained=False) for _ in range(3))
    u, do, dv = (_heads(make, V, dtype, trained=False) for _ in range(3))
    for gates in ({"g": _decay(make, *TOKENS).detach()}, {"gk": _decay(make, *TOKENS, K).detach()}):
        parallel.chunk_gated_delta_rule_fwd_h_pre_process(k, w, u, cu_seqlens=_ends(T), context=context, **gates)
        parallel.chunk_gated_delta_rule_bwd_dhu_pre_process(
            q, k, w, do, dv, scale=SCALE, cu_seqlens=_ends(T), context=context, **gates
        )


@call()
def gates(make: Make, dtype: torch.dtype) -> None:
    """Of the delta rule, of KDA, and of what is written."""
    g, bias, A = make.floats(*TOKENS, dtype=dtype).requires_grad_(), make.floats(H), make.floats(H)
    _backward(make, [delta_gate.fused_gdn_gate(g, A.requires_grad_(), bias.requires_grad_())])
    for options in ({}, {"lower_bound": -5.0}):
        g = _heads(make, K, dtype)
        A, bias = make.floats(H).requires_grad_(), make.floats(H * K).requires_grad_()
        _backward(make, [kda_gate.fused_kda_gate(g, A, bias, **options)])
    _backward(make, [gate.fused_beta_sigmoid(make.floats(*TOKENS, dtype=dtype).requires_grad_(), 2.0)])


@call(terms=600)
def norms(make: Make, dtype: torch.dtype) -> None:
    """Of length 1, and of a layer or RMS times an activation; widths of many rows for a program and of one."""
    for width in (77, 600):
        x = make.floats(9, width, dtype=dtype).requires_grad_()
        _backward(make, [l2norm.l2norm(x)])
        for activation in ("swish", "sigmoid"):
            g = make.floats(9, width, dtype=dtype).requires_grad_()
            weight, bias = (make.floats(width, dtype=dtype).requires_grad_() for _ in range(2))
            _backward(make, [fused_norm_gate.layer_norm_gated(x, g, weight, bias, activation)])
            residual = make.floats(9, width, dtype=dtype).requires_grad_()
            out = fused_norm_gate.rms_norm_gated(x, g, weight, None, activation, residual=residual, prenorm=True)
            _backward(make, out)


@call(terms=80)
def convolutions(make: Make, dtype: torch.dtype) -> None:
    """Causal, of four tokens: whole sequences, packed ones, and token by token."""
    D, W = 24, 4
    for options in (
        {"initial_state": make.floats(2, D, W, dtype=dtype).requires_grad_(), "output_final_state": True},
        {"cu_seqlens": _ends(30, 40), "output_final_state": True},
        {"activation": "swish"},
    ):
        batch = 1 if "cu_seqlens" in options else 2
        x, residual = (make.floats(batch, T, D, dtype=dtype).requires_grad_() for _ in range(2))
        weight, bias = make.floats(D, W, dtype=dtype).requires_grad_(), make.floats(D, dtype=dtype).requires_grad_()
        _backward(make, convolution.CausalConv1dFunction.apply(x, weight, bias, residual, *_positional(options)))
    for module in (convolution, convolution_kernels):
        cache = make.floats(2, D, W, dtype=dtype)
        x = make.floats(2, 1, D, dtype=dtype)
        module.causal_conv1d_update(x, cache, None, weight.detach(), bias.detach(), "swish")
        module.causal_conv1d_update_states(make.floats(2, T, D, dtype=dtype), W, cache)


def _positional(options: dict[str, Any]) -> list[Any]:
    names = ("initial_state", "output_final_state", "activation", "cu_seqlens")
    return [options.get(name) for name in names]


@call(terms=70)
def sums(make: Make, dtype: torch.dtype) -> None:
    """Cumulative ones: within chunks and over all, of scalars and of vectors, from either end, packed."""
    for ends in (None, _ends(30, 40)):
        for reverse in (False, True):
            s, v = make.floats(*TOKENS, dtype=dtype), make.floats(*TOKENS, 24, dtype=dtype)
            cumsum.chunk_local_cumsum(s, 32, reverse=reverse, cu_seqlens=ends)
            cumsum.chunk_local_cumsum(v, 32, reverse=reverse, cu_seqlens=ends)
            cumsum.chunk_global_cumsum(s, reverse=reverse, cu_seqlens=ends)
            cumsum.chunk_global_cumsum(v, reverse=reverse, cu_seqlens=ends)


@call(terms=100, narrow=True)
def products(make: Make, dtype: torch.dtype) -> None:
    """With each activation, and with an addend."""
    a, b = make.floats(50, 100, dtype=dtype), make.floats(100, 40, dtype=dtype)
    for activation in ("", "leaky_relu", "relu", "sigmoid", "tanh"):
        matmul(a, b, activation)
    addmm(make.floats(50, 40, dtype=dtype), a, b, torch.tensor(0.5), torch.tensor(2.0))


@call(terms=70)
def rows(make: Make, dtype: torch.dtype) -> None:
    """Softmax and its gradient, log of sums of exponents, means over chunks, sequences packed and unpacked."""
    x = make.floats(9, 70, dtype=dtype)
    p = softmax.softmax_fwd(x)
    softmax.softmax_bwd(p, make.floats(9, 70))
    logsumexp.logsumexp_fwd(x, 0.5)
    for ends in (None, _ends(30, 40)):
        _backward(make, [pooling.mean_pooling(_heads(make, K, dtype), 16, ends)])
    for side in ("left", "right"):
        packed = pack.pack_sequence_fwdbwd(make.floats(2, 40, 24, dtype=dtype), _ends(30, 40), side)
        pack.unpack_sequence_fwdbwd(packed, _ends(30, 40), side, (2, 40, 24))


@call(terms=64, narrow=True)
def triangular_solves(make: Make, dtype: torch.dtype) -> None:
    """Inverses of 1 and a strictly lower triangle, of each size that is written."""
    for size in (16, 32, 64):
        A = make.floats(*TOKENS, size, dtype=torch.float32, scale=0.2)
        rows = torch.arange(T) % size
        A = A * (torch.arange(size)[None, :] < rows[:, None])[None, :, None, :]
        solve_tril(A, output_dtype=dtype)


@call()
def positions(make: Make, dtype: torch.dtype) -> None:
    """Of the tokens of packed sequences, which nothing launches."""
    ends, y = _ends(30, 40), torch.empty(70, dtype=torch.int32)
    index.prepare_position_ids_kernel[(2,)](y, ends, B=32)
