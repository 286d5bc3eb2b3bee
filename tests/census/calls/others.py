"""The rest of Unsloth's and unsloth_zoo's kernels, and TRL's."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from fla.ops.utils import op
from fla.ops.utils.softplus import softplus2_nv, softplus2_triton, softplus_nv
from trl.kernels import chunked_divergence, chunked_logprob
from trl.kernels.logprob_entropy import selective_log_softmax_and_entropy
from unsloth.kernels import large_head_attention, rms_layernorm
from unsloth_zoo import merged_rollout_exact, mxfp4_dequant, mxfp4_gemm
from unsloth_zoo._vendored.vllm import gdn_replayssm_decode
from unsloth_zoo.fused_losses import fused_linear
from unsloth_zoo.temporary_patches import gdn_causal_conv1d

from tests.census.registry import NARROW, call
from tests.oracle.cases import grouped_gemm
from tests.tiles.registry import Make

ROWS, WIDTH, WORDS = 6, 40, 1000


def _backward(make: Make, outputs: Any) -> None:
    outputs = [o for o in outputs if isinstance(o, torch.Tensor) and o.requires_grad]
    torch.autograd.backward(outputs, [make.floats(*o.shape, dtype=o.dtype) for o in outputs])


@call(terms=WORDS)
def trl_logprob(make: Make, dtype: torch.dtype) -> None:
    """Plain, and with everything that is optional."""
    chunked_logprob.TOKEN_CHUNK_SIZE = 4
    targets = make.ints(ROWS, low=0, high=WORDS, dtype=torch.int64)
    for options in ((1.0, 256, None, 1.0, ("entropy",)), (0.7, 256, 30.0, 0.5)):
        hidden, weight = make.floats(ROWS, WIDTH, dtype=dtype), make.floats(WORDS, WIDTH, dtype=dtype, scale=0.3)
        bias = make.floats(WORDS, dtype=dtype) if options[2] else None
        leaves = [None if t is None else t.requires_grad_() for t in (hidden, weight, bias)]
        _backward(make, chunked_logprob.ChunkedLogProbFunction.apply(*leaves, targets, *options)[:2])


@call(terms=WORDS)
def trl_divergence(make: Make, dtype: torch.dtype) -> None:
    """Forward, reverse and between."""
    chunked_divergence.TOKEN_CHUNK_SIZE, chunked_divergence.VOCAB_CHUNK_SIZE = 4, 512
    for beta in (0.0, 0.5, 1.0):
        student = [make.floats(*s, dtype=dtype, scale=0.3).requires_grad_() for s in ((ROWS, WIDTH), (WORDS, WIDTH))]
        teacher = [make.floats(*s, dtype=dtype, scale=0.3) for s in ((ROWS, WIDTH), (WORDS, WIDTH))]
        cap = 30.0 if beta == 0.5 else None
        outputs = chunked_divergence.ChunkedDivergenceFunction.apply(
            *student, None, *teacher, None, beta, 0.9, 1.0, cap, 1.0, cap
        )
        _backward(make, outputs[:1])


@call(terms=WORDS)
def trl_entropy(make: Make, dtype: torch.dtype) -> None:
    """Log-probabilities and entropy of logits."""
    logits = make.floats(2, ROWS, WORDS, dtype=dtype, scale=3).requires_grad_()
    index = make.ints(2, ROWS, low=0, high=WORDS, dtype=torch.int64)
    _backward(make, selective_log_softmax_and_entropy(logits, index, 0.8, None))


@call(terms=WORDS)
def fused_losses(make: Make, dtype: torch.dtype) -> None:
    """Statistics of logits, their gradient, rows scaled; sums in one piece and split."""
    fused_linear._use_triton = lambda device: True
    cpu = torch.device("cpu")
    targets = make.ints(ROWS, low=0, high=WORDS, dtype=torch.int64)
    for split, cap, scale in ((0, 0.0, 1.0), (256, 30.0, 0.5)):
        fused_linear._SPLIT_COLS, fused_linear._SPLIT_BLOCK = split, 128
        x = make.floats(ROWS, WORDS, dtype=dtype, scale=3)
        bias = make.floats(WORDS, dtype=dtype) if split else None
        scalars, want = (0.8, scale, cap, 1.0, 0.0), (True, True, True, True)
        found, _ = fused_linear._row_forward(
            cpu, x, x.clone(), targets, bias, None, make.floats(1)[0], scalars, want, True
        )
        fused_linear._row_backward(
            cpu, x, torch.empty_like(x), targets, bias, found["lse"], found["lpt"], found["ent"], make.floats(ROWS),
            make.floats(ROWS), scalars[:3], 0, WORDS,
        )  # fmt: skip
    fused_linear._SPLIT_COLS = 0
    fused_linear._scale_rows_impl(make.floats(ROWS, WIDTH), make.floats(ROWS), dtype)


@call(terms=WORDS, dtypes=NARROW)
def fused_losses_in_tiles(make: Make, dtype: torch.dtype) -> None:
    """Logits never stand whole; the gradient of the hidden states comes with the forward."""
    fused_linear._use_triton = lambda device: True
    fused_linear._SPLIT_COLS, fused_linear._SPLIT_BLOCK = 256, 128
    fused_linear._tiled_layout = lambda n, V, cap, bpl, device: (4, 512)
    fused_linear._logits_into = lambda h, w, buf, fp32: buf.copy_(h.to(buf.dtype) @ w.to(buf.dtype).t())
    fused_linear._dz_w_acc = lambda acc, p, w: acc.addmm_(p.float(), w.float())
    hidden, weight = make.floats(ROWS, WIDTH, dtype=dtype), make.floats(WORDS, WIDTH, dtype=dtype, scale=0.3)
    targets = make.ints(ROWS, low=0, high=WORDS, dtype=torch.int64)
    outs = {name: torch.empty(ROWS) for name in ("logp", "lse", "ent", "sum", "lssp")}
    outs["top1"] = torch.empty(ROWS, dtype=torch.bool)
    for flash in (False, True):
        u = torch.empty(ROWS, WIDTH, dtype=torch.float32) if flash else None
        want = (not flash, not flash, not flash, not flash)
        fused_linear._tiled_forward(
            torch.device("cpu"), hidden, None, ROWS, weight, None, targets, False, (0.8, 1.0, 0.0), want, True, dtype,
            outs, 4, u=u,
        )  # fmt: skip
    fused_linear._SPLIT_COLS = 0


@call(terms=4500)
def fused_divergence(make: Make, dtype: torch.dtype) -> None:
    """Between raw logits of two models, with its gradient."""
    for beta, cap in ((0.0, 0.0), (0.5, 30.0), (1.0, 0.0)):
        s, t = make.floats(3, 4500, scale=3), make.floats(3, 4500, scale=3)
        fused_linear._jsd_triton(s, t, make.positive(1)[0], beta, 0.9, 1.0, cap, 0.5, cap, True, dtype)


@call(terms=512, narrow=True)
def attention_with_large_heads(make: Make, dtype: torch.dtype) -> None:
    """Causal within packed sequences, grouped heads, forward and backward."""
    B, H, G, S, D = 1, 2, 1, 40, 32
    q, k, v = (make.floats(B, heads, S, D, dtype=dtype) for heads in (H, G, G))
    hi = torch.arange(S, dtype=torch.int32)[None]
    lo = torch.where(hi < 17, 0, 17).to(torch.int32)
    o, lse = large_head_attention._fwd_impl(q, k, v, lo, hi, D**-0.5)
    large_head_attention._bwd_impl(make.floats(B, H, S, D, dtype=dtype), q, k, v, o, lse, lo, hi, D**-0.5)


@call(terms=64, narrow=True)
def grouped_products(make: Make, dtype: torch.dtype) -> None:
    """Unsloth's grouped GEMM: permuted on the way in, on the way out, and with tensor descriptors."""
    grouped_gemm.count_in_indices = lambda: None  # which is the interpreter's
    experts, top, tokens, N, K = 4, 2, 7, 32, 32
    gather = make.permutation(tokens * top)
    sizes = torch.tensor([5, 0, 6, 3], dtype=torch.int32)
    for permute_x, permute_y in ((True, False), (False, True)):
        X = make.floats(tokens if permute_x else tokens * top, K, dtype=dtype)
        W, dY = make.floats(experts, N, K, dtype=dtype), make.floats(tokens * top, N, dtype=dtype)
        weights = None if permute_x else make.positive(tokens * top, dtype=dtype)
        grouped_gemm.kernels(X, W, sizes, gather, top, permute_x, permute_y, dY, weights)
    interface = grouped_gemm._interface()
    dW = torch.zeros_like(W)
    interface._grouped_gemm_dW_kernel[(2,)](
        x_ptr=X, dY_ptr=dY, dW_ptr=dW, m_sizes_ptr=sizes, gather_indices_ptr=gather, NUM_TOKENS=tokens,
        NUM_EXPERTS=experts, TOPK=top, N=N, K=K, NUM_SMS=2, PERMUTE_Y=True, **grouped_gemm.BLOCKS,
    )  # fmt: skip


@call(terms=8)
def convolutions(make: Make, dtype: torch.dtype) -> None:
    """unsloth_zoo's own causal convolution: whole sequences, packed ones, token by token."""
    torch._C._cuda_getDevice = lambda: -1  # type: ignore[attr-defined]
    gdn_causal_conv1d._triton_launcher_verified = lambda: False
    D, W = 24, 4
    weight, bias = make.floats(D, W, dtype=dtype).requires_grad_(), make.floats(D, dtype=dtype).requires_grad_()
    packed = torch.where(torch.arange(40) < 17, 0, 1).to(torch.int32)[None]
    for activation, seq in (("silu", None), (None, packed)):
        x = make.floats(1, D, 40, dtype=dtype).requires_grad_()
        y = gdn_causal_conv1d._CausalConv1dFunction.apply(x, weight, bias, activation, seq)
        y.backward(make.floats(1, D, 40, dtype=dtype))
    state = make.floats(2, D, W, dtype=dtype)
    x = make.floats(2, D, 1, dtype=dtype)
    gdn_causal_conv1d.triton_causal_conv1d_update(x, state, weight.detach(), bias.detach(), "silu")


@call(terms=96, dtypes=(torch.bfloat16,))
def mxfp4_expanded(make: Make, dtype: torch.dtype) -> None:
    """Experts' weights in both narrow types, transposed and not, rounded by the device and by the kernel."""
    blocks = make.ints(3, 20, 3, 16, low=0, high=256, dtype=torch.uint8)
    scales = make.ints(3, 20, 3, low=110, high=140, dtype=torch.uint8)
    for kind, bits in ((torch.bfloat16, True), (torch.bfloat16, False), (torch.float16, False)):
        for exact in (False, True):
            for transposed in (False, True):
                out = torch.empty(3, 96, 20, dtype=kind) if transposed else torch.empty(3, 20, 96, dtype=kind)
                strides = (out.stride(0), out.stride(2), out.stride(1)) if transposed else out.stride()
                mxfp4_dequant._launch(
                    (3, 1, 3), blocks, scales, out, None, None, 20, 3, *strides, 32, 1, bits, True, exact
                )


@call(terms=96, dtypes=(torch.bfloat16,))
def mxfp4_products(make: Make, dtype: torch.dtype) -> None:
    """Rows sorted by expert, either layout, and one row for an expert."""
    blocks = make.ints(3, 32, 3, 16, low=0, high=256, dtype=torch.uint8)
    scales = make.ints(3, 32, 3, low=120, high=130, dtype=torch.uint8)
    mxfp4_gemm._asm_ok = lambda device, eager=False: 0
    counts = torch.tensor([4, 0, 6], dtype=torch.int32)
    for transposed, split in ((True, False), (True, True), (False, False), (False, True)):
        x = make.floats(10, 96 if transposed else 32, dtype=dtype)
        config = (16, 32, 32, 4, 2, split, 0)
        mxfp4_gemm.mxfp4_grouped_mm(x, blocks, scales, counts, transposed, config=config)
    one = torch.tensor([1, 0, 0], dtype=torch.int32)
    mxfp4_gemm.mxfp4_grouped_mm(make.floats(1, 96, dtype=dtype), blocks, scales, one)
    mxfp4_gemm._decode_for_test(blocks, scales)


@call(terms=16, dtypes=NARROW)
def merged_adapters(make: Make, dtype: torch.dtype) -> None:
    """Folded into the weights and out again, bit for bit."""
    merged_rollout_exact._pin_budget = lambda: 0
    w = make.floats(2, 70, 40, dtype=dtype)
    target = merged_rollout_exact.ExactFoldTarget(
        w, make.floats(2, 16, 40, dtype=dtype), make.floats(2, 70, 16, dtype=dtype), 0.01
    )
    programs = 1
    for extent in target.grid():
        programs *= extent
    target.counts = torch.empty(programs, dtype=torch.int32)
    target.checksum = torch.zeros(1, dtype=torch.int64)
    target.launch(0)
    offsets = torch.cumsum(target.counts, 0, dtype=torch.int64) - target.counts
    bad = int(target.counts.sum())
    target.launch(1, offsets, torch.empty(bad, dtype=torch.int32), torch.empty(bad, dtype=dtype))
    target.launch(2)


@call(terms=64, narrow=True)
def replayed_state_space(make: Make, dtype: torch.dtype) -> None:
    """vLLM's decoding of the gated delta rule from a ring of what has not yet been folded into the state."""
    gdn_replayssm_decode.get_replayssm_config = lambda *a, **k: (16, 2, 2, 1)
    B, H, HV, K, V, L = 3, 1, 2, 32, 16, 4
    scale, slots = K**-0.5, torch.arange(B, dtype=torch.int32)
    gdn_replayssm_decode.fused_recurrent_gated_delta_rule_replayssm(
        make.floats(B, 2 * H * K + HV * V, dtype=dtype), make.floats(B, HV, dtype=dtype),
        make.floats(B, HV, dtype=dtype), make.floats(HV), make.floats(HV), scale, make.floats(B, HV, V, K),
        make.floats(B, HV, L, V, dtype=dtype), make.floats(B, H, L, K, dtype=dtype), -make.positive(B, HV, L) / 8,
        torch.empty(B, 1, HV, V, dtype=dtype), slots, torch.tensor([0, 2, 3], dtype=torch.int32),
        torch.tensor([0, 0, 1], dtype=torch.int8), True,
    )  # fmt: skip


@triton.jit
def elementwise(x_ptr, y_ptr, FUNCTION: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, 64)
    tl.store(y_ptr + at, FUNCTION(tl.load(x_ptr + at)))


@triton.jit
def product(x_ptr, y_ptr, FUNCTION: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, 16)[:, None] * 16 + tl.arange(0, 16)[None, :]
    x = tl.load(x_ptr + at)
    tl.store(y_ptr + at, FUNCTION(x, x))


@triton.jit
def row_products(x_ptr, y_ptr, FUNCTION: tl.constexpr):  # type: ignore[no-untyped-def]
    rows, columns = tl.arange(0, 4), tl.arange(0, 128)
    x = tl.load(x_ptr + rows[:, None] * 128 + columns[None, :])
    tl.store(y_ptr + rows, FUNCTION(x, x, 4, 4))


@call(terms=128, dtypes=(torch.float32,))
def functions_that_no_kernel_calls(make: Make, dtype: torch.dtype) -> None:
    """Of flash-linear-attention, and of Unsloth on AMD's devices."""
    for function in (op.log, op.log2, op.tanh, softplus2_triton):
        elementwise[(1,)](make.positive(64), torch.empty(64), function)
    product[(1,)](make.floats(16, 16), torch.empty(16, 16), op.safe_dot)
    row_products[(1,)](make.floats(4, 128), torch.empty(4), rms_layernorm._row_dot_in_hip_row_order)


ASSEMBLY = "of NVIDIA's assembly only"


@call(dtypes=(torch.bfloat16,), raises=ASSEMBLY)
def mxfp4_decoded_by_instructions(make: Make, dtype: torch.dtype) -> None:
    """Sixteen instructions for two words."""
    blocks, scales = make.ints(64, 16, low=0, high=256, dtype=torch.uint8), make.ints(64, dtype=torch.uint8)
    mxfp4_gemm._decode_probe_kernel[(1,)](blocks, scales, torch.empty(64, 32, dtype=dtype), CVT=False)


@call(dtypes=(torch.bfloat16,), raises=ASSEMBLY)
def mxfp4_decoded_by_one_instruction(make: Make, dtype: torch.dtype) -> None:
    """That of the newest devices, with what comes before and after."""
    blocks, scales = make.ints(64, 16, low=0, high=256, dtype=torch.uint8), make.ints(64, dtype=torch.uint8)
    mxfp4_gemm._decode_probe_kernel[(1,)](blocks, scales, torch.empty(64, 32, dtype=dtype), CVT=True)


@call(dtypes=(torch.float32,), raises=ASSEMBLY)
def softplus_by_instructions(make: Make, dtype: torch.dtype) -> None:
    """The natural one."""
    elementwise[(1,)](make.positive(64), torch.empty(64), softplus_nv)


@call(dtypes=(torch.float32,), raises=ASSEMBLY)
def softplus2_by_instructions(make: Make, dtype: torch.dtype) -> None:
    """That of base 2."""
    elementwise[(1,)](make.positive(64), torch.empty(64), softplus2_nv)
