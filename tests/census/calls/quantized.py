"""Unsloth's products with 4-bit and 8-bit weights, and their expansions."""

from __future__ import annotations

from typing import Any

import torch
from unsloth.kernels import fp8, int4_packed, nf4, nf4_gemv, nvfp4

from tests.census.registry import NARROW, call
from tests.tiles.registry import Make


def nf4_state(make: Make, count: int, nested: bool, blocksize: int = 64) -> tuple[Any, ...]:
    """A weight of ``count`` codes: bytes, absmax, code2, absmax2, offset, code."""
    blocks = -(-count // blocksize)
    weight = make.ints(-(-count // 2), 1, low=0, high=256, dtype=torch.uint8)
    code = make.floats(16).sort().values
    if not nested:
        return weight, make.positive(blocks), None, None, None, code
    absmax = make.ints(blocks, low=0, high=256, dtype=torch.uint8)
    return weight, absmax, make.floats(256), make.positive(-(-blocks // 256)), make.positive(1)[0], code


@call()
def nf4_expanded(make: Make, dtype: torch.dtype) -> None:
    """Nested scales and flat ones; bytes, words, and a table in registers, for which the shim's Triton is too old."""
    nf4._HAS_TL_GATHER = True
    for nested in (False, True):
        for override in (None, (256, 2, True, True, 2), (256, 2, False, False, 1)):
            nf4._CONFIG_OVERRIDE = override
            state = nf4_state(make, 20 * 64 * 3, nested)
            nf4.dequantize_nf4(*state, 64, 256, (60, 64), dtype)
    nf4._CONFIG_OVERRIDE = None


@call(terms=640)
def nf4_times_vector(make: Make, dtype: torch.dtype) -> None:
    """Bytes and words, one row and three, a width that fills no block."""
    for nested in (False, True):
        for force in ("bytes", "words"):
            for rows, width in ((1, 640), (3, 192)):
                nf4_gemv._FORCE_KERNEL = force
                state = nf4_state(make, 40 * width, nested)
                out = torch.empty(rows, 1, 40, dtype=dtype)
                nf4_gemv.gemv_nf4_rows(make.floats(rows, 1, width, dtype=dtype), *state, 64, 256, (40, width), out)
    nf4_gemv._FORCE_KERNEL = None


def _fp8(make: Make, *shape: int) -> torch.Tensor:
    return make.floats(*shape, scale=4).to(torch.float8_e4m3fn)


@call()
def fp8_expanded(make: Make, dtype: torch.dtype) -> None:
    """By blocks, by blocks of bytes, by rows, by columns, by one scale; rounded to fp16 as AMD's devices need it."""
    fp8._fp8_exact_f16_round = lambda dtype: dtype == torch.float16
    fp8.weight_dequant_block(_fp8(make, 96, 80), make.positive(3, 3), 32, dtype)
    for kind in {dtype, torch.float16}:
        fp8._e4m3fn_bytes_dequant(_fp8(make, 50, 70), make.positive(4, 3), 16, 32, kind)
    for scale in (make.positive(50, 1), make.positive(1, 1)):
        fp8._scale_dequant_one_pass(_fp8(make, 50, 300), scale, dtype)
        fp8._scale_dequant_one_pass(_fp8(make, 300, 50).t(), scale, dtype)


@call(terms=384)
def fp8_products(make: Make, dtype: torch.dtype) -> None:
    """Activations are quantized by blocks; with pointers and with tensor descriptors."""
    for rows in (9, 140):
        A, As = fp8.act_quant(make.floats(rows, 384, dtype=dtype), 128)
        B, Bs = _fp8(make, 200, 384), make.positive(2, 3)
        fp8.w8a8_block_fp8_matmul_triton(A, B, As, Bs, [128, 128], dtype)
    fp8._launch_fp8_tma_gemm(A, B, A.new_empty(rows, 200, dtype=dtype), As, Bs, rows, 200, 384, 128, 128)


@call(terms=2048, dtypes=NARROW)
def fp8_products_with_few_rows(make: Make, dtype: torch.dtype) -> None:
    """Decoding: by blocks and by rows, sums in one piece and split."""
    fp8._FP8_ROWS_CONFIG_OVERRIDE = None
    for rows in (1, 5):
        X, weight = make.floats(rows, 512, dtype=dtype), _fp8(make, 48, 512)
        fp8.fp8_block_small_m_linear(X, weight, make.positive(1, 4))
        fp8._fp8_block_gemv(X, weight, make.positive(1, 4), 128, 128)
        fp8.fp8_rowwise_gemv(X, weight, make.positive(48, 1))
    fp8._FP8_ROWS_CONFIG_OVERRIDE = (16, 64, 4, 4, 4)
    fp8.fp8_rowwise_gemv(X, weight, make.positive(48, 1))
    fp8._FP8_ROWS_CONFIG_OVERRIDE = None
    fp8.fp8_block_small_m_linear(make.floats(3, 2048, dtype=dtype), _fp8(make, 16, 2048), make.positive(1, 16))


def _int4_state(make: Make, rows: int, width: int, zero: bool, ordered: bool, dtype: torch.dtype) -> Any:
    groups = width // 64
    scale = make.positive(rows, groups, dtype=dtype)
    zero_point = make.ints(rows, groups, low=0, high=16, dtype=torch.int8) if zero else None
    index = make.ints(width, low=0, high=groups) if ordered else None
    return int4_packed.Int4QuantState(scale, zero_point, index, (rows, width), 4, 64, dtype)


@call(terms=256)
def int4_expanded(make: Make, dtype: torch.dtype) -> None:
    """With zero points and without, in the order of activations and not, in two layouts of tiles."""
    for zero in (False, True):
        for ordered in (False, True):
            state = _int4_state(make, 24, 256, zero, ordered, dtype)
            int4_packed.int4_dequantize(make.ints(24, 32, low=-(2**31), high=2**31), state, dtype)
    for layout in ("tinygemm", "marlin"):
        for zero in (False, True):
            state = _int4_state(make, 64, 256, False, False, dtype)
            state.layout = layout
            state.zero_point = make.ints(8, 4, low=-(2**31), high=2**31) if zero else None
            words = make.ints(64, 32, low=-(2**31), high=2**31)
            int4_packed.int4_dequantize(words, state, dtype)
            int4_packed.int4_unpack(words, state)


@call(terms=256)
def int4_times_vector(make: Make, dtype: torch.dtype) -> None:
    """Decoding."""
    for zero in (False, True):
        state = _int4_state(make, 24, 256, zero, False, dtype)
        words = make.ints(24, 32, low=-(2**31), high=2**31)
        int4_packed.int4_matmul(make.floats(1, 256, dtype=dtype), words, state)


def _nvfp4(make: Make, rows: int, width: int, bytes_: bool) -> tuple[torch.Tensor, ...]:
    scale = make.positive(rows, width // 16)
    scale = scale.to(torch.float8_e4m3fn) if bytes_ else scale
    return make.ints(rows, width // 2, low=0, high=256, dtype=torch.uint8), scale, make.positive(1)


@call()
def nvfp4_expanded(make: Make, dtype: torch.dtype) -> None:
    """Scales in fp8 and in fp32."""
    for bytes_ in (False, True):
        nvfp4._nvfp4_dequantize_triton(*_nvfp4(make, 20, 96, bytes_), dtype)


@call(terms=1024, narrow=True, dtypes=NARROW)
def nvfp4_products(make: Make, dtype: torch.dtype) -> None:
    """Forward and the gradient of the input; sums in one piece and split; sizes that fill no block."""
    for rows, outs, width in ((5, 40, 96), (1, 48, 1024)):
        weight = _nvfp4(make, outs, width, rows == 5)
        nvfp4._nvfp4_matmul_fwd_fused(make.floats(rows, width, dtype=dtype), *weight)
        nvfp4._nvfp4_matmul_dx_fused(make.floats(rows, outs, dtype=dtype), *weight)
