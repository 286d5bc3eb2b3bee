"""What Triton 3.9's interpreter gets wrong or lacks, and Unsloth's kernels need: bfloat16 and ``libdevice.tanh``.

The interpreter keeps bfloat16 as uint16 and hands the bits to numpy as integers, in every arithmetic operation; its
conversion from float32 cuts the low bits off. On a GPU each bfloat16 operation is computed in float32 and rounded to
nearest even, which is what is done here. Other dtypes take Triton's own code. Some of Unsloth's launchers also ask for
the current CUDA device's index when a tensor's device has none; here it is 0.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.language.extra import libdevice
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle


def complete_interpreter() -> None:
    """Changes the interpreter's builder in this process, and what Unsloth's kernels take from elsewhere."""
    complete_bfloat16()
    libdevice.tanh = _tanh
    importlib.import_module("unsloth.kernels.utils").triton_cast = _cast
    torch.cuda.current_device = lambda: 0


def complete_bfloat16() -> None:
    """Changes the interpreter's builder in this process; needs nothing but Triton."""
    _round_bfloat16("binary_op")
    _round_bfloat16("unary_op")
    _round_bfloat16("create_fma")
    _round_bfloat16("create_dot")
    _convert_bfloat16("cast_impl")
    _convert_bfloat16("create_fp_to_fp")


def widen(bits: np.ndarray) -> np.ndarray:
    """bfloat16 bits as float32."""
    return (np.ascontiguousarray(bits).astype(np.uint32) << 16).view(np.float32).reshape(np.shape(bits))


def narrow(values: np.ndarray) -> np.ndarray:
    """float32 as bfloat16 bits, rounded to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32).reshape(np.shape(values))
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1)).astype(np.uint32)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def _is_bfloat16(value: Any) -> bool:
    return isinstance(value, TensorHandle) and value.dtype == tl.bfloat16


def _widened(value: Any) -> Any:
    return TensorHandle(widen(value.data), tl.float32) if _is_bfloat16(value) else value


def _round_bfloat16(name: str) -> None:
    """Operands are widened; a floating result that would have been bfloat16 is rounded to it."""
    plain: Callable[..., Any] = getattr(InterpreterBuilder, name)

    def operation(self: Any, *args: Any) -> Any:
        if not any(_is_bfloat16(arg) for arg in args):
            return plain(self, *args)
        with np.errstate(all="ignore"):
            result = plain(self, *[_widened(arg) for arg in args])
        to_bfloat16 = name != "create_dot" or _is_bfloat16(args[2])
        if to_bfloat16 and result.data.dtype == np.float32:
            return TensorHandle(narrow(result.data), tl.bfloat16)
        return result

    setattr(InterpreterBuilder, name, operation)


def _convert_bfloat16(name: str) -> None:
    plain: Callable[..., Any] = getattr(InterpreterBuilder, name)

    def convert(self: Any, src: Any, dst_type: Any, *rest: Any) -> Any:
        if tl.bfloat16 not in (src.dtype.scalar, dst_type.scalar) or src.dtype.scalar == dst_type.scalar:
            return plain(self, src, dst_type, *rest)
        wide = widen(src.data) if src.dtype.scalar == tl.bfloat16 else src.data
        if dst_type.scalar == tl.bfloat16:
            return TensorHandle(narrow(wide.astype(np.float32)), tl.bfloat16)
        return TensorHandle(wide.astype(interpreter._get_np_dtype(dst_type.scalar)), dst_type.scalar)

    setattr(InterpreterBuilder, name, convert)


def _cast(x: Any, dtype: Any) -> Any:
    """``tl.cast``, looked up when it is called: the interpreter replaces names of ``tl``, not copies of them."""
    return tl.cast(x, dtype)


def _tanh(x: Any, _semantic: Any = None) -> Any:
    return tl.tensor(TensorHandle(np.tanh(x.handle.data), x.handle.dtype), x.type)
