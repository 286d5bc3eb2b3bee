"""unsloth_zoo's mixtures of experts: routing, grouped products with every kind of weight, and what is around them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from unsloth_zoo.temporary_patches import (
    gpt_oss_grouped_qlora,
    moe_fused_swiglu,
    moe_grouped_fp16,
    moe_nf4_grouped,
    moe_routed,
    moe_router_triton,
    moe_routing_triton,
    moe_triton_kernels,
    moe_utils_sonic,
)

from tests.census.calls.quantized import nf4_state
from tests.census.registry import NARROW, call
from tests.tiles.registry import Make

EXPERTS, TOP, TOKENS = 5, 2, 9
WIDTH, OUT = 96, 64


@call()
def routing(make: Make, dtype: torch.dtype) -> None:
    """Slots sorted by expert: in one block, and in several."""
    chosen = make.ints(TOKENS, TOP, low=0, high=EXPERTS, dtype=torch.int64)
    moe_routing_triton._launch(chosen, EXPERTS)
    moe_routing_triton._launch(make.ints(70, TOP, low=0, high=EXPERTS), EXPERTS, single_block_max=16, block=32)


@call(terms=16)
def routers(make: Make, dtype: torch.dtype) -> None:
    """Softmax and sigmoid, in groups, with a bias; and the gradient."""
    for mode in (0, 1, 2):
        for groups, renorm, bias in ((1, True, False), (4, False, True)):
            logits = make.floats(TOKENS, 16, dtype=dtype)
            _, ids = moe_router_triton._router_fwd_impl(
                logits, make.floats(16) if bias else None, TOP, mode, renorm, groups, 2, 1.5, True
            )
            moe_router_triton._router_bwd_impl(logits, ids, make.floats(TOKENS, TOP), mode, renorm, 1.5)


@call()
def gated_units(make: Make, dtype: torch.dtype) -> None:
    """Each activation, interleaved and not, rounded as eager code rounds and not."""
    for act in (0, 1, 2):
        for interleaved in (False, True):
            for eager in (False, True):
                gate_up = make.floats(TOKENS, 2 * OUT, dtype=dtype)
                moe_fused_swiglu._launch_fwd(gate_up, act, interleaved, 1.702, 7.0, eager)
                grad = make.floats(TOKENS, OUT, dtype=dtype)
                moe_fused_swiglu._launch_bwd(grad, gate_up, act, interleaved, 1.702, 7.0, eager)
    out, preact, grad = torch.empty(TOKENS, 2 * OUT, dtype=dtype), gate_up, grad
    moe_utils_sonic._swiglu_bwd_interleaved_kernel[(1,)](preact, grad, out, grad.numel(), BLOCK=1024)


@call(terms=96, narrow=True)
def grouped_products(make: Make, dtype: torch.dtype) -> None:
    """Of rows sorted by expert: either layout of the weights, a bias, scales, and the gradient of the weights."""
    counts = torch.tensor([3, 0, 11, 1, 5], dtype=torch.int32)
    a, rows = make.floats(20, WIDTH, dtype=dtype), 20
    weights = make.floats(EXPERTS, OUT, WIDTH, dtype=dtype)
    moe_grouped_fp16.grouped_gemm(a, weights, counts, dtype, b_trans=True, backend="triton")
    bias = make.floats(EXPERTS, OUT, dtype=dtype)
    moe_grouped_fp16.grouped_gemm(
        a, weights.transpose(1, 2).contiguous(), counts, torch.float32, b_trans=False, backend="triton", bias=bias
    )
    if dtype != torch.float32:
        for mode in (moe_grouped_fp16.A_CAST, moe_grouped_fp16.A_SPLIT):
            moe_grouped_fp16.grouped_gemm(
                a.float(), weights, counts, dtype, b_trans=True, backend="triton", a_mode=mode,
                row_scale=make.positive(rows), config=(16, 16, 32, 4, 2, 8),
            )  # fmt: skip
    g = make.floats(rows, OUT, dtype=dtype)
    moe_grouped_fp16.grouped_wgrad(g, a, counts, torch.float32, backend="triton")
    moe_grouped_fp16.grouped_wgrad(g, a, counts.cumsum(0), dtype, backend="triton", ends=True)


@call(terms=96, narrow=True, dtypes=NARROW)
def grouped_products_with_nf4(make: Make, dtype: torch.dtype) -> None:
    """Each layout of the packed weights, nested scales and flat ones."""
    ends = torch.tensor([3, 3, 14, 15, 20], dtype=torch.int32)
    for nested in (False, True):
        packed, absmax, code2, absmax2, offset, code = nf4_state(make, EXPERTS * WIDTH * OUT, nested)
        parts = [absmax if part is None else part for part in (code2, absmax2, offset)]
        for strides in ((OUT, 1), (1, WIDTH)):
            moe_nf4_grouped._launch(
                make.floats(20, WIDTH, dtype=dtype), packed, absmax, *parts, code, ends, WIDTH, OUT, *strides,
                64, 256, nested, dtype,
            )  # fmt: skip


@call()
def weights_from_nf4(make: Make, dtype: torch.dtype) -> None:
    """One stack, and chosen experts of one."""
    for nested in (False, True):
        packed, absmax, code2, absmax2, offset, code = nf4_state(make, OUT * WIDTH, nested)
        state = SimpleNamespace(
            quant_type="nf4", blocksize=64, code=code, absmax=absmax, nested=nested, dtype=dtype, offset=offset,
            state2=SimpleNamespace(code=code2, absmax=absmax2, blocksize=256), shape=(OUT, WIDTH),
        )  # fmt: skip
        moe_triton_kernels.moe_triton_kernels_available = lambda device=None: True
        moe_triton_kernels.nf4_dequant_triton(packed, state)
        out = torch.empty(3, OUT, WIDTH, dtype=dtype)
        moe_routed._select_dequant_launch(_table(make, nested), torch.tensor([2, -1, 4]), out)


def _table(make: Make, nested: bool) -> dict[str, Any]:
    count = EXPERTS * OUT * WIDTH
    packed, absmax, code2, absmax2, offset, code = nf4_state(make, count, nested)
    parts = [absmax if part is None else part for part in (absmax2, code2, offset)]
    bias = make.floats(EXPERTS, OUT)
    return moe_routed._tb(packed, absmax, *parts, code, bias, OUT, WIDTH, 64, 256, nested, 4, True)


@call(dtypes=NARROW, by_address=True)
def weights_from_nf4_by_address(make: Make, dtype: torch.dtype) -> None:
    """A stack of experts whose weights are given as addresses."""
    states = [nf4_state(make, OUT * WIDTH, False) for _ in range(EXPERTS)]
    addresses = [torch.tensor([state[part].data_ptr() for state in states]) for part in (0, 1)]
    table = {
        "w": addresses[0], "a": addresses[1], "a2": addresses[1], "c2": addresses[1], "off": states[0][5],
        "lut": states[0][5], "N": OUT, "K": WIDTH, "blocksize": 64, "blocksize2": 256, "nested": False,
    }  # fmt: skip
    found = torch.empty(EXPERTS, OUT, WIDTH, dtype=dtype)
    gpt_oss_grouped_qlora._nf4_dequant_stack_kernel[(3, EXPERTS)](
        *(table[name] for name in ("w", "a", "a2", "c2", "off", "lut")), found,
        OUT * WIDTH // 2, BLOCKSIZE=64, BLOCKSIZE2=256, NESTED=False, BLOCK=1024, LONG_INDEXING=False,
    )  # fmt: skip
    for weight, (packed, absmax, *_) in zip(found, states, strict=True):
        codes = torch.stack((packed >> 4, packed & 15), -1).reshape(-1, 64).int()
        assert torch.equal(weight.reshape(-1, 64), (states[0][5][codes] * absmax[:, None]).to(dtype))


@call(terms=96)
def decoding_with_nf4(make: Make, dtype: torch.dtype) -> None:
    """A token's experts out of a stack: gate, up and down, with LoRA and without."""
    for nested in (False, True):
        idx = make.ints(TOKENS * TOP, low=0, high=EXPERTS, dtype=torch.int64)
        x, table = make.floats(TOKENS, WIDTH, dtype=dtype), _table(make, nested)
        lora = (make.floats(EXPERTS, OUT, 8), make.floats(TOKENS * TOP, 8), 2.0) if nested else None
        out = torch.empty(TOKENS * TOP, OUT // 2)
        moe_routed._gate_up(x, idx, table, TOP, lora, 1.702, 7.0, out)
        weights = make.positive(TOKENS * TOP, 1)
        rows = make.floats(TOKENS * TOP, WIDTH)
        moe_routed._down(rows, idx, weights, False, table, TOP, lora, torch.empty(TOKENS, OUT, dtype=dtype))


@call(terms=96, narrow=True, dtypes=NARROW)
def decoding(make: Make, dtype: torch.dtype) -> None:
    """The same with weights in 16 bits."""
    idx = make.ints(TOKENS * TOP, low=0, high=EXPERTS, dtype=torch.int64)
    x = make.floats(TOKENS, WIDTH, dtype=dtype)
    weight, bias = make.floats(EXPERTS, WIDTH, OUT, dtype=dtype), make.floats(EXPERTS, OUT, dtype=dtype)
    A, B = make.floats(EXPERTS, WIDTH, 8, dtype=dtype), make.floats(EXPERTS, 8, OUT, dtype=dtype)
    h = moe_routed._lora_a_launch(x, idx, A, TOP)
    moe_routed._lora_b_launch(make.floats(TOKENS * TOP, OUT), None, h, idx, B, 2.0)
    for lora in ((A, B, None, 2.0), (None, None, None, 0.0)):
        moe_routed._gate_up_act_launch(x, idx, weight, bias, *lora, TOP, 0, True, 1.702, 7.0, dtype)
        rows, rw = make.floats(TOKENS * TOP, WIDTH, dtype=dtype), make.positive(TOKENS * TOP, 1)
        moe_routed._down_sum_launch(rows, idx, rw, weight, bias, *lora, TOP, dtype)


@call(dtypes=NARROW, by_address=True)
def lora_by_address(make: Make, dtype: torch.dtype) -> None:
    """Adapters that are given as addresses."""
    kind = moe_routed.LORA_KINDS[dtype]
    A = [make.floats(8, WIDTH, dtype=dtype) for _ in range(EXPERTS)]
    idx = make.ints(TOKENS * TOP, low=0, high=EXPERTS, dtype=torch.int64)
    out, addresses = torch.empty(TOKENS * TOP, 8), torch.tensor([a.data_ptr() for a in A])
    x = make.floats(TOKENS, WIDTH, dtype=dtype)
    moe_routed._lora_h_launch(x, idx, addresses, kind, 8, TOP, out)
    right = torch.einsum("skw,sw->sk", torch.stack(A)[idx].double(), x.repeat_interleave(TOP, 0).double())
    assert (out - right).abs().max() <= WIDTH * 2.0**-24 * right.abs().max()


@call(terms=64)
def weighted_sums(make: Make, dtype: torch.dtype) -> None:
    """Of what a token's experts gave, and the gradients."""
    moe_triton_kernels.moe_triton_kernels_available = lambda device=None: True
    y = make.floats(TOKENS * TOP, OUT, dtype=dtype).requires_grad_()
    slots = make.permutation(TOKENS * TOP).long()
    w = make.positive(TOKENS * TOP, dtype=dtype).requires_grad_()
    out = moe_triton_kernels._WeightedUnpermute.apply(y, slots, w, TOKENS, TOP, None)
    out.backward(make.floats(TOKENS, OUT, dtype=dtype))
