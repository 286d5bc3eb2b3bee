"""Runs every op, guard and operator of bitsandbytes on the simulated Mac, with and without autocast.

    python -m tests.e2e.below_autocast

Prints one JSON object: for each name and dtype of autocast whether the bits are the same.
"""

from __future__ import annotations

import inspect
import json
import pkgutil
from collections.abc import Callable
from importlib import import_module
from itertools import chain
from types import SimpleNamespace
from typing import Any

from patcher import patch_for_mac

HANDLE = patch_for_mac(simulate="M1 16GB, torch 2.13")  # which every guard is for

import bitsandbytes as bnb
import torch
from bitsandbytes.functional import create_dynamic_map, get_4bit_type
from torch import Tensor

import patcher.ops
from patcher.ops.attention import Pattern
from patcher.ops.blocked_attention import Problem
from patcher.ops.cross_entropy_rows import STATISTICS, Rows, Terms
from patcher.ops.logit_tiles import Head, LogitTransform
from patcher.ops.lora import Adapter, Layout
from patcher.ops.softmax_tile import Gradient, Sums
from patcher.ops.visible_keys import Band

AUTOCAST = (torch.float16, torch.bfloat16)
SHOWN_BY_OTHERS = {"spans", "row_chunks", "is_long", "parts_of_sum", "split_sum", "matmul_split"}
SHOWN_BY_OTHERS |= {"kept_weight", "philox", "dropped", "threshold"}  # of attention
SHOWN_BY_OTHERS |= {"linear_cross_entropy"}  # its dtype is autocast's, as a linear layer's
SHOWN_BY_OTHERS |= {"dense_attention", "drawn_seed", "fits", "pattern_of", "refuse"}
"""Functions in patcher/ops that compute nothing, that only guards and other ops call, or that ask autocast."""


def seeded(*shape: int, dtype: torch.dtype = torch.float32, factor: float = 1.0) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) * factor
    return made.to("mps", dtype)


def ops(dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
    """One call of every function in patcher/ops, by its name, on inputs of ``dtype``."""
    o = SimpleNamespace(**{function.__name__: function for function in public_ops()})
    x, y, w, table = seeded(6, 16, dtype=dtype), seeded(6, 16, dtype=dtype), seeded(16, dtype=dtype), seeded(6, 16)
    one, zero, heads = torch.ones(6, device="mps"), torch.zeros(6, device="mps"), seeded(2, 3, 4, 16, dtype=dtype)
    q, kv = seeded(1, 4, 5, 16, dtype=dtype), seeded(1, 2, 5, 16, dtype=dtype)
    vocabulary, logits, index = seeded(50, 16, dtype=dtype), seeded(6, 50, dtype=dtype), torch.arange(6, device="mps")
    student, teacher = (Head(z, vocabulary, None, LogitTransform(), dtype) for z in (x, y))
    sizes, experts = torch.tensor([2, 0, 4]), seeded(3, 8, 16, dtype=dtype)
    pattern, starts = Pattern(0.25, causal=True), torch.tensor([0, 3, 5], device="mps", dtype=torch.int32)
    problem, rows = Problem(q, kv, kv, pattern, Band(5, 5, None, 0)), [x[0].transpose(0, 1) for x in (q, kv, kv)]
    differentiable = Problem(*(x.clone().requires_grad_() for x in (q, kv, kv)), pattern, Band(5, 5, None, 0))
    adapters = [Adapter(seeded(4, 16), seeded(16, 4), 2.0)]
    packed, layout, small = seeded(128, dtype=dtype), Layout.of(adapters), seeded(4, 6, dtype=dtype)
    rstds = seeded(6, 4).abs().view(2, 3, 4), seeded(6, 2).abs().view(2, 3, 2)
    tall, wide = seeded(6, 300, dtype=dtype), seeded(300, 5, dtype=dtype)

    def tile() -> Tensor:
        return seeded(61, dtype=dtype)[:60].view(6, 10)

    return {
        "attention": lambda: o.attention(q, kv, kv, pattern),
        "attention_forward": lambda: o.attention_forward(q, kv, kv, pattern),
        "attention_varlen": lambda: o.attention_varlen(*rows, starts, starts, 3, 3, pattern),
        "attention_varlen_forward": lambda: o.attention_varlen_forward(*rows, starts, starts, 3, 3, pattern),
        "blocked_attention_forward": lambda: o.blocked_attention_forward(problem),
        "blocked_attention_backward": lambda: o.blocked_attention_backward(
            problem, q, *o.blocked_attention_forward(problem)
        ),
        "chunked_divergence": lambda: o.chunked_divergence(student, teacher, 0.4),
        "chunked_divergence_backward": lambda: o.chunked_divergence_backward(
            one, student, teacher, 0.4, one, one, one, (True, True, False)
        ),
        "add_product_": lambda: o.add_product_(torch.zeros(6, 5, device="mps"), tall.to(dtype), wide.to(dtype)),
        "dense_attention_gradients": lambda: o.dense_attention_gradients(
            differentiable, q, (True, True, True, False, False)
        ),
        "flash_attention": lambda: o.flash_attention(*(x.transpose(1, 2) for x in (q, kv, kv)), pattern),
        "flash_attention_varlen": lambda: o.flash_attention_varlen(*rows, starts, starts, 3, 3, pattern),
        "scaled_dot_product_attention": lambda: o.scaled_dot_product_attention(
            q, kv, kv, q[0, 0, :, :5] > 0, 0.0, False, None
        ),
        "counted_rows": lambda: o.counted_rows(index, 50, 3),
        "positions": lambda: o.positions(index > 2, 3),
        "fold_": lambda: o.fold_(
            tile(), index, None, LogitTransform(softcap=4.0), Sums.of_nothing(6, index.device), weights=True
        ),
        "gradient_": lambda: o.gradient_(made := tile(), index, None, LogitTransform(), Gradient(one, zero)) or made,
        "cross_entropy_rows": lambda: o.cross_entropy_rows(student, index, wanted=STATISTICS, gradient=dtype),
        "cross_entropy_rows_backward": lambda: o.cross_entropy_rows_backward(
            one, student, index, None, Rows(one, one, 4 * one, one), Terms(), (True, True, False), grad_entropy=one
        ),
        "label_nll": lambda: o.label_nll(student, index, 4 * one),
        "spread": lambda: o.spread(x, one, index, torch.empty(7, 16, dtype=dtype, device="mps")),
        "cross_entropy": lambda: o.cross_entropy(logits, index),
        "cross_entropy_backward": lambda: o.cross_entropy_backward(one, logits.clone(), index, one, one),
        "dense": lambda: o.dense(w.expand(6, 16)),
        "lora": lambda: (lora_outputs := [x.clone()], o.lora(y, lora_outputs, packed, layout)),
        "lora_back": lambda: o.lora_back([x], packed, layout),
        "lora_gradients": lambda: list(chain(*o.lora_gradients(x, small, small, [y], layout, torch.float32))),
        "add_lora_grad_input": lambda: o.add_lora_grad_input(into := x.clone(), small, packed, layout) or into,
        "pack": lambda: o.pack(adapters, dtype),
        "runs": lambda: o.runs([x[:2], x[2:], w]),
        "gated": lambda: o.gated(x, y, o.silu),
        "gated_backward": lambda: o.gated_backward(x, y, x, o.silu_and_slope),
        "gated_backward_": lambda: o.gated_backward_(x.clone(), y.clone(), x.clone(), o.gelu_and_slope),
        "gelu": lambda: o.gelu(table),
        "gelu_and_slope": lambda: o.gelu_and_slope(table.clone()),
        "gelu_tanh": lambda: o.gelu_tanh(table),
        "gelu_tanh_and_slope": lambda: o.gelu_tanh_and_slope(table.clone()),
        "silu": lambda: o.silu(table),
        "silu_and_slope": lambda: o.silu_and_slope(table.clone()),
        "grouped_mm": lambda: o.grouped_mm(x, experts, sizes),
        "grouped_mm_weight_": lambda: o.grouped_mm_weight_(experts.clone(), x, x[:, :8], sizes),
        "layer_norm": lambda: o.layer_norm(x, w, w, 1e-6),
        "layer_norm_backward": lambda: o.layer_norm_backward(x, y, w, zero, one, (True, True, True)),
        "log_prob_entropy": lambda: o.log_prob_entropy(logits, index),
        "log_prob_entropy_backward": lambda: o.log_prob_entropy_backward(one, one, logits, index, one, one),
        "project": lambda: o.project(x, vocabulary, None, torch.empty(6, 50, device="mps", dtype=torch.float32)),
        "addmm_fp32_": lambda: o.addmm_fp32_(torch.zeros(6, 5, device="mps"), tall, wide),
        "qk_norm_rope": lambda: o.qk_norm_rope(heads, w, table, table, 1e-6),
        "qk_norm_rope_backward": lambda: o.qk_norm_rope_backward(heads, heads, w, seeded(6, 4), table, table),
        "rms_norm": lambda: o.rms_norm(x, w, 1e-6),
        "rms_norm_backward": lambda: (
            (out := torch.empty_like(x)),
            o.rms_norm_backward(x, y, w, one, grad_input=out, needs_grad_weight=True),
        ),
        "add_rms_norm_": lambda: o.add_rms_norm_(x.clone(), y.clone(), w, 1e-6),
        "qk_norm_rope_pair": lambda: o.qk_norm_rope_pair(heads, heads[:, :, :2], w, w, table, table, 1e-6, 1e-6),
        "qk_norm_rope_pair_backward": lambda: o.qk_norm_rope_pair_backward(
            heads, heads[:, :, :2], heads, heads[:, :, :2], w, w, *rstds, table, table
        ),
        "rope_": lambda: o.rope_(heads, table[:, :8], table[:, 8:], out=torch.empty_like(heads)),
        "rope_pair_": lambda: (
            o.rope_pair_(
                q,
                kv,
                table[:5, :8],
                table[:5, 8:],
                q_out=(turned := torch.empty_like(q)),
                k_out=(other := torch.empty_like(kv)),
            )
            or (turned, other)
        ),
    }


def public_ops() -> list[Callable[..., Any]]:
    modules = [import_module(f"patcher.ops.{info.name}") for info in pkgutil.iter_modules(patcher.ops.__path__)]
    return [
        value
        for module in modules
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]


def guards() -> dict[str, Callable[[], Any]]:
    """The guards of products that autocast hands through: ``out=``, in place, and the backward of a linear layer."""
    a, b, into = seeded(2, 40000), seeded(40000, 3), torch.zeros(2, 3, device="mps")
    return {
        "mm.out": lambda: torch.mm(a, b, out=into.clone()),
        "addmm_": lambda: into.clone().addmm_(a, b),
        "addmm.out": lambda: torch.addmm(into, a, b, out=into.clone()),
        "bmm.out": lambda: torch.bmm(a[None], b[None], out=into[None].clone()),
        "baddbmm_": lambda: into[None].clone().baddbmm_(a[None], b[None]),
        "baddbmm.out": lambda: torch.baddbmm(into[None], a[None], b[None], out=into[None].clone()),
        "addbmm_": lambda: into.clone().addbmm_(a[None], b[None]),
        "addbmm.out": lambda: torch.addbmm(into, a[None], b[None], out=into.clone()),
        "linear_backward": lambda: torch.ops.aten.linear_backward(seeded(2, 3), a, b, [True] * 3),
        "convolution_backward": lambda: torch.ops.aten.convolution_backward(
            seeded(4, 2, 6), seeded(4, 3, 8), seeded(2, 3, 3), [2], [1], [0], [1], False, [0], 1, [True] * 3
        ),
    }


def bitsandbytes_operators(dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
    """One call of every operator that bitsandbytes defines."""
    q = torch.ops.bitsandbytes
    x, w = seeded(4, 256, dtype=dtype), seeded(128, 256, dtype=dtype)
    code, unsigned = create_dynamic_map().to("mps"), create_dynamic_map(signed=False).to("mps")
    nf4 = get_4bit_type("nf4", device="mps")
    codes, absmax = q.quantize_4bit(w, 64, "nf4", torch.uint8)
    bytes_, scales = q.quantize_blockwise(w, code, 256)
    half = x.half()
    CA, SCA, _ = q.int8_vectorwise_quant(half)
    CB, SCB, _ = q.int8_vectorwise_quant(w.half())
    columns = torch.tensor([3, 7], device="mps")
    product = q.int8_linear_matmul(CA, CB)

    def into(operator: Any, shape: tuple[int, ...], kind: torch.dtype, *args: Any) -> Tensor:
        out = torch.zeros(shape, dtype=kind, device="mps")
        operator(*args, out)
        return out

    def update(operator: Any, states: list[Tensor], *args: Any) -> list[Tensor]:
        p, g = w.clone(), w * 0.01
        operator("adam", g, p, *states, *args)
        return [p, *states]

    return {
        "dequantize_4bit": lambda: q.dequantize_4bit(codes, absmax, 64, "nf4", w.shape, dtype),
        "dequantize_4bit.out": lambda: into(
            q.dequantize_4bit.out, w.shape, dtype, codes, absmax, 64, "nf4", w.shape, dtype
        ),
        "dequantize_blockwise": lambda: q.dequantize_blockwise(bytes_, scales, code, 256, dtype),
        "gemm_4bit": lambda: q.gemm_4bit(x, codes, w.shape, absmax, 64, "nf4"),
        "gemv_4bit": lambda: q.gemv_4bit(x[:1], codes, w.shape, absmax, nf4, 64),
        "gemv_4bit.out": lambda: into(q.gemv_4bit.out, (1, 128), dtype, x[:1], codes, w.shape, absmax, nf4, 64),
        "int8_linear_matmul": lambda: q.int8_linear_matmul(CA, CB),
        "int8_linear_matmul.out": lambda: into(q.int8_linear_matmul.out, (4, 128), torch.int32, CA, CB),
        "int8_mixed_scaled_mm": lambda: q.int8_mixed_scaled_mm(half, CA, CB, SCA, SCB, columns),
        "int8_mm_dequant": lambda: q.int8_mm_dequant(product, SCA, SCB),
        "int8_scaled_mm": lambda: q.int8_scaled_mm(CA, CB, SCA, SCB, dtype=dtype),
        "int8_vectorwise_dequant": lambda: q.int8_vectorwise_dequant(CB, SCB),
        "int8_vectorwise_quant": lambda: q.int8_vectorwise_quant(half, 3.0),
        "optimizer_update_32bit": lambda: update(
            q.optimizer_update_32bit, [torch.zeros_like(w, dtype=torch.float32) for _ in range(2)],
            None, 0.0, 0.0, 0.9, 0.99, 0.0, 0.0, 1e-8, 0.01, 1, 1e-3, 1.0,
        ),
        "quantize_4bit": lambda: q.quantize_4bit(w, 64, "nf4", torch.uint8),
        "quantize_blockwise": lambda: q.quantize_blockwise(w, code, 256),
        "optimizer_update_8bit_blockwise": lambda: update(
            q.optimizer_update_8bit_blockwise, [bytes_.clone(), q.quantize_blockwise(w * w, unsigned, 256)[0]],
            0.9, 0.99, 0.0, 0.0, 1e-8, 1, 1e-3, code, unsigned, scales.clone(), scales.square(), 0.01, 1.0,
        ),
    }  # fmt: skip


def layer() -> Callable[[], Any]:
    """A layer in LLM.int8 with sums far above 65504, the largest number of fp16."""
    linear = bnb.nn.Linear8bitLt(256, 128, bias=False, has_fp16_weights=False, threshold=0.0)
    linear.load_state_dict({"weight": seeded(128, 256, dtype=torch.float16).cpu()})
    linear, x = linear.to("cuda"), seeded(4, 256, dtype=torch.float16)
    return lambda: linear(x)


def operators_with_kernels() -> set[str]:
    """Names of bitsandbytes' operators that run on mps or on the CPU; two of 0.50.2 have kernels for CUDA only."""
    names = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("bitsandbytes::")}
    keys = ("MPS", "CPU", "CompositeExplicitAutograd")
    having = {n for n in names if any(torch._C._dispatch_has_kernel_for_dispatch_key(n, key) for key in keys)}
    return {name.removeprefix("bitsandbytes::") for name in having}


def tensors(value: Any) -> list[Tensor]:
    """Every tensor in a result, in order."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return list(chain.from_iterable(map(tensors, parts)))


def same(call: Callable[[], Any], dtype: torch.dtype) -> bool:
    """Whether ``call`` gives the same bits with autocast to ``dtype`` as without."""
    expected = tensors(call())
    with torch.autocast("mps", dtype=dtype):
        found = tensors(call())
    assert expected, "nothing was computed"
    return all(a.dtype == b.dtype and torch.equal(a.cpu(), b.cpu()) for a, b in zip(expected, found, strict=True))


def main() -> None:
    missing = operators_with_kernels() ^ set(bitsandbytes_operators(torch.float32))
    missing |= {f.__name__ for f in public_ops()} ^ set(ops(torch.float32)) ^ SHOWN_BY_OTHERS
    calls = {f"guard {name}": call for name, call in guards().items()} | {"Linear8bitLt": layer()}
    for dtype in (torch.float32, *AUTOCAST):
        calls |= {f"{name} of {dtype}": call for name, call in ops(dtype).items()}
        calls |= {f"bitsandbytes::{name} of {dtype}": call for name, call in bitsandbytes_operators(dtype).items()}
    result = {f"{name} in {dtype}": same(call, dtype) for name, call in calls.items() for dtype in AUTOCAST}
    print(json.dumps({"missing": sorted(missing), "same": result, "bitsandbytes": bnb.__version__}))


if __name__ == "__main__":
    main()
