"""What Triton 3.9's interpreter gets wrong or lacks, and Unsloth's kernels need: bfloat16, fp8, libdevice.

The interpreter keeps bfloat16 as uint16 and hands the bits to numpy as integers, in every arithmetic operation; its
conversion from float32 cuts the low bits off. On a GPU each bfloat16 operation is computed in float32 and rounded to
nearest even, which is what is done here. It rounds to fp8 half away from zero and loses the carry; torch's conversion
stands in, with what is too large for e4m3 at the largest number, as GPUs have it. Other dtypes take Triton's own code.
Some of Unsloth's launchers also ask for
the current CUDA device's index when a tensor's device has none; here it is 0.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
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
    complete_fp8()
    _take_integers_for_masks()
    _pass_floats_as_fp32()
    _sum_bfloat16()
    builder = interpreter.interpreter_builder
    precisions = (*builder.options.allowed_dot_input_precisions, "bf16x3", "bf16x6")
    builder.options = replace(builder.options, allowed_dot_input_precisions=precisions)
    InterpreterBuilder.create_inline_asm = _instruction
    for name, function in LIBDEVICE.items():
        setattr(libdevice, name, _elementwise(function))
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


def complete_fp8() -> None:
    """Changes the interpreter's builder in this process; comes after `complete_bfloat16`."""
    for name in ("cast_impl", "create_fp_to_fp"):
        _convert_fp8(name)
    dot: Callable[..., Any] = InterpreterBuilder.create_dot
    InterpreterBuilder.create_dot = lambda self, a, b, *rest: dot(self, _widened_fp8(a), _widened_fp8(b), *rest)


def _take_integers_for_masks() -> None:
    """``True & block`` is a block of int32 in the interpreter; a compiled kernel has a condition there."""
    for name, place in (("create_masked_load", 1), ("create_masked_store", 2)):
        plain: Callable[..., Any] = getattr(InterpreterBuilder, name)

        def access(*args: Any, plain: Callable[..., Any] = plain, place: int = place + 1, **named: Any) -> Any:
            mask = TensorHandle(args[place].data.astype(bool), tl.int1)
            return plain(*args[:place], mask, *args[place + 1 :], **named)

        setattr(InterpreterBuilder, name, access)


def _pass_floats_as_fp32() -> None:
    """As compiled kernels get them; the interpreter leaves them to Python, where they are of any width."""
    plain = interpreter._implicit_cvt

    def convert(arg: Any) -> Any:
        if isinstance(arg, float):
            return tl.tensor(TensorHandle(np.array([arg], dtype=np.float32), tl.float32), tl.float32)
        return plain(arg)

    interpreter._implicit_cvt = convert


def _sum_bfloat16() -> None:
    """The interpreter adds the bits as if they were integers."""
    plain = interpreter.ReduceOps.sum

    def add(self: Any, value: Any) -> Any:
        if value.dtype != tl.bfloat16:
            return plain(self, value)
        found = np.sum(widen(value.handle.data), axis=self.axis, keepdims=self.keep_dims)
        return self.to_tensor(narrow(found), tl.bfloat16)

    interpreter.ReduceOps.sum = add


INSTRUCTIONS: dict[str, Callable[..., Any]] = {
    "div.rn.f32": np.divide,
    "rcp.rn.f32": lambda x: np.float32(1) / x,
}


def _instruction(self: Any, asm: str, constraints: str, values: list[Any], *rest: Any) -> Any:
    """One of `INSTRUCTIONS`, alone. Raises KeyError for other assembly."""
    with np.errstate(all="ignore"):
        found = INSTRUCTIONS[asm.split()[0]](*[value.data for value in values])
    return _Call(TensorHandle(found, tl.float32))


class _Call:
    """What the language asks for the results of assembly."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    def get_result(self, place: int) -> Any:
        return self.handle


FP8 = {tl.float8e4nv: torch.float8_e4m3fn, tl.float8e5: torch.float8_e5m2}


def _widened_fp8(value: Any) -> Any:
    if value.dtype.scalar not in FP8:
        return value
    bits = torch.from_numpy(np.array(value.data, dtype=np.uint8))
    return TensorHandle(bits.view(FP8[value.dtype.scalar]).float().numpy(), tl.float32)


def _convert_fp8(name: str) -> None:
    plain: Callable[..., Any] = getattr(InterpreterBuilder, name)

    def convert(self: Any, src: Any, dst_type: Any, *rest: Any) -> Any:
        source, target = src.dtype.scalar, dst_type.scalar
        if source == target or not {source, target} & FP8.keys():
            return plain(self, src, dst_type, *rest)
        wide = _widened_fp8(src)
        if target in FP8:
            wide = wide if wide.dtype.scalar == tl.float32 else self.cast_impl(wide, tl.float32)
            largest = torch.finfo(FP8[target]).max if target == tl.float8e4nv else float("inf")
            narrow = torch.from_numpy(np.array(wide.data)).clamp(-largest, largest).to(FP8[target])
            return TensorHandle(narrow.view(torch.uint8).numpy(), target)
        return wide if target == tl.float32 else self.cast_impl(wide, dst_type)

    setattr(InterpreterBuilder, name, convert)


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


LIBDEVICE: dict[str, Callable[..., Any]] = {
    "tanh": np.tanh,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log1p": np.log1p,
    "fast_expf": np.exp,
    "fast_logf": np.log,
    "fast_log2f": np.log2,
    "fast_tanhf": np.tanh,
    "mul_rn": np.multiply,
    "div_rn": np.divide,
    "fma": lambda a, b, c: (a.astype(np.float64) * b + c).astype(np.float32),
}


def _elementwise(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, _semantic: Any = None) -> Any:
        first = next(arg for arg in args if hasattr(arg, "handle"))
        values = [arg.handle.data if hasattr(arg, "handle") else np.float32(arg) for arg in args]
        with np.errstate(all="ignore"):
            found = function(*values)
        return tl.tensor(TensorHandle(found, first.handle.dtype), _semantic_type(first, found))

    return call


def _semantic_type(first: Any, found: np.ndarray) -> Any:
    return tl.block_type(first.type.scalar, list(found.shape)) if found.ndim and first.type.is_block() else first.type
